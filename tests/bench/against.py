"""This tree against another commit of it, by processor time and in turns: what a change costs, start and hot path.

    python -m tests.bench.against COMMIT [--rounds 10]

Wall time says little on a machine with neighbours; processor time of the measured process is disturbed less, and the
least of many turns least. Both trees run under this interpreter, so what a commit needs must be installed.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_VMM = "11111111-1111-4111-8111-111111111111"
_REQUESTS = 4000
"""PUTs of one turn: some 200 ms; with a few hundred, what is only made at the first request would show."""
_LIVES = (
    "import sys, time\n"
    "from tests.bench import lives\n"
    "rack, best = lives.rack_with(0), None\n"
    "for turn in range(6):\n"
    "    began = time.process_time()\n"
    "    for number in range(turn * 500, turn * 500 + 500):\n"
    "        lives.our_life(rack, number, lives.T0_US)\n"
    "    took = (time.process_time() - began) / 500 * 1e6\n"
    "    best = took if best is None else min(best, took)\n"
    "print(best)\n"
)


def _python(tree: Path, *arguments: str) -> dict:
    return {
        "args": [sys.executable, *arguments],
        "cwd": tree,
        "env": os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests'}"},
    }


class Serving:
    """`serve` of one tree with one VMM, and a connection to it. `start_s`: its processor time until it was ready."""

    def __init__(self, tree: Path, folder: Path):
        file = folder / "ports.json"
        file.unlink(missing_ok=True)
        words = ("-m", "sim_sled", "serve", "914e42ed-0e74-4719-90d7-21c1b5c132a2", "[::1]:0", "[::1]:1")
        self._process = subprocess.Popen(
            **_python(tree, *words, "--port-file", str(file)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not file.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"serve of {tree} ended with {self._process.returncode}")
            time.sleep(0.002)
        self.start_s = self.cpu_ns() / 1e9
        self._address = json.loads(file.read_text())["address"]
        self._connection: socket.socket | None = None

    def cpu_ns(self) -> int:
        tasks = Path(f"/proc/{self._process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def ask(self, path: str, body: object) -> None:
        if self._connection is None:
            host, _, port = self._address.rpartition(":")
            self._connection = socket.create_connection((host.strip("[]"), int(port)))
            self._answers = self._connection.makefile("rb")
        data = json.dumps(body).encode()
        head = f"PUT {path} HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\ncontent-type: application/json\r\n"
        self._connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        status, length = self._answers.readline(), 0
        while (line := self._answers.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self._answers.read(length)
        if b" 200 " not in status:
            raise RuntimeError(f"{path}: {status!r}")

    def put_us(self) -> float:
        """Processor time of one PUT state, in microseconds."""
        began = self.cpu_ns()
        for _ in range(_REQUESTS):
            self.ask(f"/vmms/{_VMM}/state", {"state": {"type": "running"}})
        return (self.cpu_ns() - began) / _REQUESTS / 1e3

    def close(self) -> None:
        if self._connection is not None:
            self._answers.close()
            self._connection.close()
        self._process.terminate()
        self._process.wait()


def compare(trees: dict[str, Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """By row and tree, one figure per turn."""
    from tests.support.wire.register_body import register_body

    rows: dict[str, dict[str, list[float]]] = {}

    def add(row: str, name: str, value: float) -> None:
        rows.setdefault(row, {}).setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, tree in trees.items():
                one = Serving(tree, Path(folder))
                time.sleep(0.5)  # idle is idle
                if turn:  # the first writes the caches of both
                    add("start, ms", name, one.start_s * 1e3)
                    add("idle memory, MB", name, one.resident_mb())
                one.close()
        served = {name: Serving(tree, Path(folder)) for name, tree in trees.items()}
        try:
            for one in served.values():
                one.ask(f"/vmms/{_VMM}", register_body())
                one.put_us()
            for _ in range(rounds):
                for name, one in served.items():
                    add("(a) PUT state, us", name, one.put_us())
        finally:
            for one in served.values():
                one.close()
    for _ in range(rounds):
        for name, tree in trees.items():
            told = subprocess.run(**_python(tree, "-c", _LIVES), check=True, capture_output=True)
            add("(c) a life, us", name, float(told.stdout))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.against", description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=10)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there"
        git = ["git", "-C", str(_ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(there), wanted.commit], check=True)
        try:
            rows = compare({"there": there, "here": _ROOT}, wanted.rounds)
        finally:
            subprocess.run([*git, "remove", "--force", str(there)], check=True)
    print(f"{'processor time':20}{'there':>10}{'here':>10}{'least':>8}{'median':>8}")
    for row, by_tree in rows.items():
        least = {name: min(values) for name, values in by_tree.items()}
        middle = {name: statistics.median(values) for name, values in by_tree.items()}
        ratios = [figures["here"] / figures["there"] for figures in (least, middle)]
        print(f"{row:20}{least['there']:10.1f}{least['here']:10.1f}" + "".join(f"{ratio:8.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
