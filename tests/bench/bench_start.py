"""(h) How long until a command is of use, in imports of aiohttp: what no server of ours can do without; and what an
idle one takes of memory.

Whole processes and the floor in turns; of wall time and of processor time (user and system, up to the moment when the
command is of use) the least of all turns, which is what the neighbours disturb least. The first turn is not counted:
it compiles what has changed, and keeps it, as an installation does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

SMALL = "version: 1\nload:\n- at: 0s\n  create: {hostname: a, count: 1}\n"
SLED = "914e42ed-0e74-4719-90d7-21c1b5c132a2"
NOBODY = "[::1]:1"
SERVERS = {
    "serve": ("-m", "sim_sled", "serve", SLED, "[::1]:0", NOBODY),
    "nexus": ("-m", "sim_sled", "nexus", "[::1]:0", "--lockstep", "[::1]:0", "--control", "[::1]:0"),
    "up": ("-m", "sim_sled", "up", "--name", "bench-start"),
}
"""Ready when their port file is there; in `up` is a model of Nexus, with which its sled has registered by then."""
AIM_S = {"serve": 1.7, "check": 2.0, "run": 2.0}
"""In imports of aiohttp; of the others none is named."""
MEMORY_MB = 50.0
_ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@attrs.define
class Starts:
    """What one command took in each turn: seconds on the wall and of the processor."""

    wall: list[float] = attrs.field(factory=list)
    cpu: list[float] = attrs.field(factory=list)
    memory_mb: float = 0.0


def _whole(*arguments: str) -> tuple[float, float]:
    """A process from its first moment to its last."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_ENV
    )
    told = process.stderr.read()
    process.stderr.close()
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {told.decode()}")
    return took, used.ru_utime + used.ru_stime


def _ready(folder: Path, arguments: tuple[str, ...]) -> tuple[float, float, float]:
    """Seconds on the wall and of the processor until the port file is there, and MB of memory then."""
    file = folder / "ports.json"
    file.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments, "--port-file", str(file)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENV,
    )  # fmt: skip
    try:
        while not file.exists():
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
            time.sleep(0.001)
        took = time.perf_counter() - began
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        assert json.loads(file.read_text())
        return took, cpu, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        process.terminate()
        process.wait()


def bench(rounds: int) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most, ratio by CPU."""
    floor, commands = Starts(), {name: Starts() for name in (*SERVERS, "check", "run")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenario = folder / "s.yaml"
        scenario.write_text(SMALL)
        play = {"check": ("check", str(scenario)), "run": ("run", str(scenario), "--seed", "1")}

        def keep(starts: Starts, wall: float, cpu: float) -> None:
            starts.wall.append(wall)
            starts.cpu.append(cpu)

        for turn in range(rounds + 1):
            if turn == 1:
                for starts in (floor, *commands.values()):
                    starts.wall.clear()
                    starts.cpu.clear()
            keep(floor, *_whole("-c", "import aiohttp"))
            for command, arguments in SERVERS.items():
                wall, cpu, commands[command].memory_mb = _ready(folder, arguments)
                keep(commands[command], wall, cpu)
            for command, arguments in play.items():
                keep(commands[command], *_whole("-m", "sim_sled", *arguments))

    def start(command: str) -> tuple:
        took, least = min(commands[command].wall), min(floor.wall)
        by_cpu = min(commands[command].cpu) / min(floor.cpu)
        text = f"{command} is ready" if command in SERVERS else f"{command} has done its work"
        text = f"(h) {text}; floor: import aiohttp" if command == next(iter(SERVERS)) else f"    {text}"
        return (text, took * 1e3, least * 1e3, took / least, "ms", AIM_S.get(command), True, by_cpu)

    def memory(command: str) -> tuple:
        mb = commands[command].memory_mb
        return (
            f"    memory of an idle {command}; floor: what is wanted",
            mb,
            MEMORY_MB,
            mb / MEMORY_MB,
            "MB",
            1.0,
            True,
        )

    return [*map(start, commands), *map(memory, SERVERS)]
