"""Racks found by name: whoever looks is never in the way of one that begins."""

import asyncio
import errno
import io
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from nexus_client.dropshot import collector
from sim_sled.cli import up
from sim_sled.cli.control_client import where
from sim_sled.cli.racks import called, down
from sim_sled.cli.up import addresses_of
from sim_sled.daemon import racks
from sim_sled.daemon.small_rack import FLEET_MAX, RackError, handle_of

LOOKS_S = 0.3
"""Within that a look is over that nothing keeps; one that waits for the rack needs no more of it."""


@pytest.fixture(name="_home", autouse=True)
def _a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_rack_that_begins_while_somebody_looks_has_its_name_and_is_found(monkeypatch):
    """Looking takes dead racks away: one that just begins must not be taken for dead, nor its name for taken."""
    lock = racks.fcntl.flock
    looker = threading.Thread(target=racks.running)

    def at_the_worst_moment(file, how):
        if how & racks.fcntl.LOCK_NB and not looker.ident:
            looker.start()
            looker.join(LOOKS_S)
        lock(file, how)

    monkeypatch.setattr(racks.fcntl, "flock", at_the_worst_moment)
    with racks.claimed("demo") as file:
        racks.publish(file, {"pid": 1})
        looker.join()
        assert racks.running() == {"demo": {"pid": 1}}
    assert racks.running() == {}
    assert list(racks.folder().iterdir()) == [], "nothing is left behind"


def test_a_name_that_is_taken_is_taken_until_it_is_given_back():
    with racks.claimed("demo"):
        with pytest.raises(racks.NameTaken), racks.claimed("demo"):
            pass
        with racks.claimed("other"):
            pass
    with racks.claimed("demo"):
        pass


def test_the_port_file_of_the_largest_fleet_is_read_again(tmp_path):
    name = "r" * 63
    handles = [handle_of(name, n, f"[::1]:{n}", f"sled-{n}") for n in range(1, FLEET_MAX + 1)]
    rack = SimpleNamespace(name=name, handles=handles, nexus="[::1]:12221", server=None)
    file = tmp_path / "p.json"
    file.write_text(msgspec.json.format(msgspec.json.encode(addresses_of(rack, "127.0.0.1:1")).decode()))
    assert where(None, file) == "127.0.0.1:1"
    with racks.claimed(name) as published:
        published.write_bytes(file.read_bytes())
        assert len(racks.find(name)[1]["sleds"]) == FLEET_MAX


def test_a_rack_to_which_nobody_gave_a_name_is_the_rack():
    assert (called("rack"), called("demo")) == ("the rack", "rack demo")


def test_a_rack_whose_session_took_the_folder_of_racks_along_ends_as_well_as_any():
    with racks.claimed("demo"):
        shutil.rmtree(racks.folder())
        racks.ends_with("demo", 1)
    assert not racks.folder().exists()


def test_who_waits_for_a_verdict_is_told_when_there_was_none():
    with racks.claimed("demo"), racks.ending("demo") as early, racks.ending("demo") as late:
        racks.ends_with("demo", None)
        assert early() is None
        racks.ends_with("demo", 0)
        assert late() == 0


def test_what_a_full_disk_does_not_take_is_told_with_its_name_and_leaves_nothing(monkeypatch):
    def full(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with racks.claimed("demo") as file:
        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space") as told:
            racks.publish(file, {"pid": 1})
        assert told.value.filename == str(file)
        assert [each.name for each in racks.folder().iterdir()] == ["demo.lock"]


class Rack:
    """As far as `up` looks at it; no more than two sleds are taken."""

    name, nexus, server = "demo", "[::1]:12221", None

    def __init__(self):
        self.sleds = 1

    @property
    def handles(self):
        return [handle_of(self.name, n, f"[::1]:{n}", f"sled-{n}") for n in range(1, self.sleds + 1)]

    async def scale(self, sleds):
        self.sleds = min(sleds, 2)
        if sleds > 2:
            raise RackError("Nexus does not take the sleds")


async def test_sleds_that_came_are_found_though_not_all_did_and_are_there_though_nobody_can_be_told(monkeypatch):
    rack, scale, stop = Rack(), asyncio.Future(), asyncio.Future()

    async def closes():
        pass

    async def control(_rack, _guarded, scaled):
        return SimpleNamespace(address="127.0.0.1:1", close=closes, scale=scale.set_result(scaled))

    monkeypatch.setattr(up, "_control", control)
    monkeypatch.setattr(collector, "started", lambda: None)
    with racks.claimed(rack.name) as file:
        ready = asyncio.create_task(up._ready(rack, None, file, None, stop, lambda _: "", io.StringIO()))
        scaled = await scale
        with pytest.raises(RackError):
            await scaled(3)
        assert len(racks.find(rack.name)[1]["sleds"]) == 2
        shutil.rmtree(racks.folder())
        await scaled(1)
        stop.set_result(0)
        assert await ready == 0


def test_a_rack_that_ends_by_itself_just_when_somebody_ends_it_has_ended(monkeypatch, capsys):
    claim = racks.claimed("demo")
    racks.publish(claim.__enter__(), {"pid": 1})

    def too_late(_pid, _signal):
        claim.__exit__(None, None, None)
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", too_late)
    down("demo", None)
    assert capsys.readouterr().out == "rack demo has ended\n"
