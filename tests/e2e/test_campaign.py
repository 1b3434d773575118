"""A campaign that is killed goes on, and one on a cluster whose worker is killed gives the same bytes as one here."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from support import processes
from support.command import in_process

from sim_sled.campaign import cluster
from sim_sled.campaign.explore import place_of
from sim_sled.campaign.job import Job
from sim_sled.campaign.places import NobodyPlays, Sizer, in_order
from sim_sled.campaign.version import code_version
from sim_sled.language.check import load_scenarios
from sim_sled.play.run import How

RUNS = 200
FEW = 20
ROOT = Path(__file__).parents[2]


def explore(*words):
    return processes.start(*processes.forked("sim_sled", "explore", "happy", *map(str, words)))


async def ended(process):
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def until(true, process=None):
    """Files have no other way to say that they have grown."""
    while not true():
        assert process is None or process.returncode is None, (await ended(process))[1:]
        await asyncio.sleep(0.02)


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of the campaign that nobody interrupted, and which one process played."""
    path = tmp_path_factory.mktemp("campaign") / "whole"

    async def play():
        code, _, err = await ended(await explore("--runs", RUNS, "--jobs", 1, "--results", path))
        assert code == 0, err

    asyncio.run(play())
    return path.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children as Linux shows them")
async def test_a_campaign_that_is_killed_has_in_its_file_what_it_had_played(tmp_path):
    file, path, undisturbed = (tmp_path / name for name in ("short.yaml", "results", "undisturbed"))
    file.write_text("version: 1\nload: [{at: 0s, create: {hostname: a}}]\n")
    endless = ("explore", str(file), "--runs", "1000000", "--jobs", "2", "--results", str(path))
    process = await processes.start(*processes.forked("sim_sled", *endless))
    await until(lambda: lines_of(path) > FEW, process)
    for player in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(player), signal.SIGINT)  # a terminal sends it to all, and one answers; they do not hear it
    heard = lines_of(path)
    await until(lambda: lines_of(path) > heard + FEW, process)
    process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(60):
        await process.communicate()  # until those that played have ended, too: they have its streams
    more = str(lines_of(path) + FEW)
    words = ("explore", str(file), "--runs", more, "--jobs", "1", "--results")
    assert "of the runs were in the file" in in_process(*words, str(path), "--resume")[1]
    assert in_process(*words, str(undisturbed))[0] == 0
    assert path.read_bytes() == undisturbed.read_bytes()


@pytest.mark.early
@pytest.mark.long
async def test_a_campaign_survives_kill_9(tmp_path, whole):
    path = tmp_path / "results"
    for wanted in (20, 60):
        process = await explore("--runs", RUNS, "--jobs", 2, "--results", path, "--resume")
        await until(lambda wanted=wanted: lines_of(path) > wanted, process)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert lines_of(path) < RUNS
    with path.open("ab") as file:
        file.write(b'{"seed":')  # the kernel writes a line whole; a machine that loses power may not
    code, out, err = await ended(await explore("--runs", RUNS, "--jobs", 2, "--results", path, "--resume"))
    assert code == 0, err
    assert "of the runs were in the file" in out
    assert path.read_bytes() == whole


class DaskCluster:
    """A scheduler in this process, and workers."""

    def __init__(self, folder):
        self.folder = folder
        self.workers = []

    async def begin(self, workers):
        from distributed import Scheduler  # a second, and every pytest worker collects this file

        self.scheduler = await Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0")
        for _ in range(workers):
            await self.join()
        return self.scheduler.address

    async def join(self, **env):
        """Returns when the scheduler knows it."""
        number = len(self.workers)
        process = await processes.start(
            *(sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler.address, "--name", str(number)),
            *("--nthreads", "1", "--no-nanny", "--no-dashboard"),
            env={**os.environ, **env},
            cwd=self.folder,  # not this checkout: python -m would take its code first
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self.workers.append(process)
        await until(lambda: any(int(one.name) == number for one in self.scheduler.workers.values()), process)

    async def end(self):
        for process in self.workers:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.scheduler.close()


@pytest.fixture(name="cluster")
async def _cluster(tmp_path):
    one = DaskCluster(tmp_path)
    yield one
    await one.end()


async def kill_one_at_work(cluster, campaign):
    """kill -9 for a worker that has batches: it is stopped first, so that it still has them when it dies."""
    while campaign.returncode is None:
        for worker in list(cluster.scheduler.workers.values()):
            if not worker.processing:
                continue
            process = cluster.workers[int(worker.name)]
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.1)  # what it has said before is heard
            if worker.processing:
                process.kill()
                return
            process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.01)
    raise AssertionError("the campaign was over before anybody was seen at work")


@pytest.mark.early
@pytest.mark.long
async def test_a_cluster_whose_worker_is_killed_gives_the_same_bytes(tmp_path, whole, cluster):
    path = tmp_path / "results"
    address = await cluster.begin(workers=3)
    process = await explore("--runs", RUNS, "--on", address, "--results", path)
    await until(lambda: lines_of(path) > 0, process)
    await kill_one_at_work(cluster, process)
    await cluster.join()
    code, _, err = await ended(process)
    assert code == 0, err
    assert path.read_bytes() == whole


@pytest.mark.early
@pytest.mark.long
async def test_a_guided_swarm_on_a_cluster_gives_the_same_bytes_as_here(tmp_path, cluster):
    """What a seed draws depends on what others reached: on whoever played them nothing depends."""
    there, here = tmp_path / "there", tmp_path / "here"
    address = await cluster.begin(workers=2)
    code, _, err = await ended(await explore("--swarm", "--runs", 2 * FEW, "--on", address, "--results", there))
    assert code == 0, err
    code, _, err = await ended(await explore("--swarm", "--runs", 2 * FEW, "--jobs", 1, "--results", here))
    assert code == 0, err
    assert there.read_bytes() == here.read_bytes()


@pytest.fixture
def other_code(tmp_path):
    """A folder with this package, a comment longer."""
    other = tmp_path / "other"
    for package in ("sim_sled", "nexus_client", "propolis_stub", "scenarios"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "sim_sled" / "files.py").open("a") as file:
        file.write("# other code\n")
    return other


@pytest.mark.early
@pytest.mark.long
async def test_a_worker_with_other_code_is_refused_with_a_sentence(tmp_path, whole, other_code, cluster):
    path = tmp_path / "results"
    address = await cluster.begin(workers=0)
    await cluster.join(PYTHONPATH=str(other_code))
    alone = await ended(await explore("--runs", FEW, "--on", address))
    assert alone[0] == 3
    assert "no worker of" in alone[2]
    assert " is refused: it has sim-sled 0.1.0+" in alone[2]
    await cluster.join()
    code, _, err = await ended(await explore("--runs", FEW, "--on", address, "--results", path))
    assert code == 0, err
    lines = path.read_bytes().splitlines()
    assert len(lines) == FEW + 1
    assert lines[1:] == whole.splitlines()[1 : FEW + 1], "all but the head, which says how many"


IMPATIENT = (
    "from sim_sled.campaign import cluster; cluster.CONNECT_S = 0.5; from sim_sled.__main__ import main; main()"
)
"""distributed connects again until its time is over, also where nobody listens."""


@pytest.mark.long
async def test_no_scheduler_is_a_sentence():
    words = ("explore", "happy", "--on", "tcp://127.0.0.1:1", "--runs", "1")
    code, out, err = await ended(await processes.start(sys.executable, "-c", IMPATIENT, *words))
    assert (code, out) == (3, "")
    assert "no scheduler at tcp://127.0.0.1:1" in err
    assert "0 runs" not in err
    assert "Traceback" not in err


@pytest.mark.long
def test_what_dask_logs_of_a_scheduler_that_is_gone_is_not_seen_beside_our_sentence():
    """In a process of its own: levels are of a whole process."""
    code = (
        "import logging, distributed; from sim_sled.campaign.cluster import _only_we_talk; _only_we_talk();"
        "logging.getLogger('distributed.client').error('a traceback');"
        "logging.getLogger('tornado.application').error('another one')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")


# --- a cluster without Dask, whose imports alone take a second


class KilledWorker(Exception):
    """By its name, as the cluster knows Dask's."""


@attrs.define
class Played:
    """A task that has ended."""

    does: Callable[[], object]

    def result(self, timeout):
        return self.does()

    def add_done_callback(self, callback):
        callback(self)


class Client:
    """Of a scheduler with three workers: the first has other code, the second dies, the third plays."""

    status = "running"
    workers = ("other", "mortal", "good")

    def __init__(self, address, **_):
        if address == "tcp://nowhere":
            raise OSError("nobody listens")
        self.asked = []

    def wait_for_workers(self, *_, **__):
        return None

    def scheduler_info(self, **_):
        return {"workers": {name: {"nthreads": 1} for name in self.workers}}

    def submit(self, function, wanted, *more, pure, workers):
        name = self.workers[min(len(self.asked), len(self.workers) - 1)]
        assert workers is None or name in workers, "who was refused is asked again"
        self.asked.append(name)

        def plays():
            if name == "mortal":
                raise KilledWorker
            return (name, "0.1.0+other") if name == "other" else function(wanted, *more)

        return Played(plays)

    def close(self):
        self.status = "closed"


@pytest.fixture
def _without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client))
    monkeypatch.setitem(sys.modules, "cloudpickle", SimpleNamespace(register_pickle_by_value=lambda _: None))


@pytest.fixture
def happy():
    [loaded], _ = load_scenarios([str(ROOT / "scenarios/happy.yaml")])
    return Job("happy", loaded.scenario, How())


@pytest.mark.usefixtures("_without_dask")
def test_what_a_worker_that_dies_or_has_other_code_should_play_is_played_by_another(happy):
    said = []
    place = cluster.Cluster(happy, "tcp://somewhere", said.append)
    played, here = (list(in_order(each, range(4), Sizer(1))) for each in (place, place_of(happy, 1)))
    assert played == here
    assert place._client.asked == ["other", "mortal", "good", *["good"] * (len(place._client.asked) - 3)]
    assert said == [f"worker other is refused: it has sim-sled 0.1.0+other, this is {code_version()}"]
    assert place.players() == 2, "it is not asked again"
    place.close()


@pytest.mark.usefixtures("_without_dask")
@pytest.mark.parametrize(
    ("workers", "said"), [(("other",), "no worker of tcp://somewhere has"), (("mortal",) * 2, "cannot play: Killed")]
)
def test_a_cluster_in_which_nobody_can_play_is_a_sentence(happy, monkeypatch, workers, said):
    monkeypatch.setattr(Client, "workers", workers)
    place = cluster.Cluster(happy, "tcp://somewhere", str)
    with pytest.raises(NobodyPlays, match=said):
        list(in_order(place, range(4), Sizer(1)))


@pytest.mark.usefixtures("_without_dask")
def test_a_scheduler_that_is_not_there_or_has_gone_is_a_sentence(happy):
    with pytest.raises(NobodyPlays, match="no scheduler at tcp://nowhere: nobody listens"):
        cluster.Cluster(happy, "tcp://nowhere", str)
    place = cluster.Cluster(happy, "tcp://somewhere", str)
    place.close()
    with pytest.raises(NobodyPlays, match="the scheduler at tcp://somewhere is gone"):
        place.look()
