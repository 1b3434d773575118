"""(h) How long until a command is of use, in imports of aiohttp: what no server of ours can do without.

Wall time of whole processes, the least of some, both in turns: the least is what the neighbours disturb
least.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = "version: 1\nload:\n- at: 0s\n  create: {hostname: a, count: 1}\n"


def _import_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import aiohttp"], check=True)
    return time.perf_counter() - began


def _command_s(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sim_sled", *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def _serve_s(folder: Path) -> tuple[float, float]:
    """Seconds until the port file is there, and MB of memory then."""
    file = folder / "p.json"
    file.unlink(missing_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sim_sled", "serve", "914e42ed-0e74-4719-90d7-21c1b5c132a2", "[::1]:0", "[::1]:1",
         "--port-file", str(file)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not file.exists():
            if process.poll() is not None:
                raise RuntimeError(f"serve ended with {process.returncode}")
            time.sleep(0.001)
        took = time.perf_counter() - began
        assert json.loads(file.read_text())["pid"] == process.pid
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return took, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        process.terminate()
        process.wait()


def bench(rounds: int) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenario = folder / "s.yaml"
        scenario.write_text(SMALL)
        floors, serves, checks, runs, memory = [], [], [], [], 0.0
        for _ in range(rounds):
            floors.append(_import_s())
            took, memory = _serve_s(folder)
            serves.append(took)
            checks.append(_command_s("check", str(scenario)))
            runs.append(_command_s("run", str(scenario), "--seed", "1"))
    floor = min(floors)

    def row(text: str, took: list[float], aim: float) -> tuple:
        return (text, min(took) * 1e3, floor * 1e3, min(took) / floor, "ms", aim, True)

    return [
        row("(h) serve is ready; floor: import aiohttp", serves, 1.7),
        row("    check has checked", checks, 2.0),
        row("    run has run one VM", runs, 2.0),
        ("    memory of an idle serve; floor: what is wanted", memory, 50.0, memory / 50.0, "MB", 1.0, True),
    ]
