"""(i) A fleet in one process: its listeners, its registration, and what a sled takes.

The model of Nexus is another process, so that what is measured is the sleds' own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nexus_client.dropshot import collector
from sim_sled import logs
from sim_sled.daemon import descriptors, loop
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.small_rack import SmallRack

WAIT_S = 60.0


async def fleet(sleds: int, nexus: str) -> dict[str, float]:
    """A rack of so many sleds from nothing until all are registered: seconds and bytes."""
    logs.configure(level="error")
    collector.worker()  # the product's own policy
    descriptors.allow(sleds)
    rack = SmallRack(name="bench", sleds=sleds, nexus=nexus, shutdown_wait_s=0.0)
    figures = {}
    bind = Daemon.start

    async def timed(daemon: Daemon) -> None:
        began = time.process_time()
        await bind(daemon)
        figures["listen_s"] = time.process_time() - began

    Daemon.start = timed
    before, began, began_cpu = _rss(), time.perf_counter(), time.process_time()
    await rack.start()
    figures["ready_s"] = time.perf_counter() - began
    figures["cpu_s"] = time.process_time() - began_cpu
    figures["bytes"] = (_rss() - before) / sleds
    await rack.stop()
    return figures


def _rss() -> int:
    fields = Path("/proc/self/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024


def _cpu_s(pid: int) -> float:
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def measured(sleds: int) -> dict[str, float]:
    """`fleet` in a process of its own, beside a model of Nexus in another."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nexus.json"
        nexus = subprocess.Popen(
            [sys.executable, "-m", "sim_sled", "nexus", "[::1]:0", "--lockstep", "[::1]:0",
             "--control", "[::1]:0", "--port-file", str(file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.perf_counter() + WAIT_S
            while not file.exists():
                if nexus.poll() is not None or time.perf_counter() > until:
                    raise RuntimeError("the model of Nexus does not start")
                time.sleep(0.01)
            address = json.loads(file.read_text())["address"]
            command = [sys.executable, "-m", "tests.bench.bench_fleet", str(sleds), address]
            before = _cpu_s(nexus.pid)
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            return found | {"cpu_s": found["cpu_s"] + _cpu_s(nexus.pid) - before}
        finally:
            nexus.terminate()
            nexus.wait()


def bench(sleds: int, rounds: int) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most. Floors are the aims."""
    runs = [measured(sleds) for _ in range(rounds)]
    rows = (
        ("listen_s", "processor time to listen", 2.0, "s"),
        ("ready_s", "until all are registered", 10.0, "s"),
        ("bytes", "memory per sled", 10_000.0, "bytes"),
    )
    found = []
    for key, text, aim, unit in rows:
        least = min(each[key] for each in runs)
        # of the sleds' process and the model's together: as if one core had to do it all
        by_cpu = min(each["cpu_s"] for each in runs) / aim if key == "ready_s" else None
        found.append((f"(i) {sleds:,} sleds: {text}; floor: aim", least, aim, least / aim, unit, 1.0, True, by_cpu))
    return found


if __name__ == "__main__":

    async def main() -> int:
        print(json.dumps(await fleet(int(sys.argv[1]), sys.argv[2])))
        return 0

    loop.run(main())
