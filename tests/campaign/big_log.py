"""A gigabyte of log through `import`: how long it takes and how much memory it needs.

    python -m tests.campaign.big_log [--mb 1024] [--gzip] [--verify]

Writes a log of a sled agent and of Nexus: the lives of VMs, one of whose teardowns is slow, among health checks and
what Nexus says of itself, which are nearly all of a real log (LG 2.2). Then it runs the command on it, sees that the
slow teardown is in the scenario, and prints size, seconds and memory.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest lets tests import `support`

from tests.support.incident.writing import Log, uid

START = datetime(2026, 8, 24, tzinfo=UTC)
LIVES = 200
"""Instances that are created and stopped, whatever the size: the rest is what a log is full of."""
EVERY_S = 60.0
"""Between two of them."""
NOISE = ("authorize result", "roles", "authorize begin", "resolved TLS certificate", "activation complete")


def noise(second, chunk_bytes):
    """So many bytes of checks that went well, of VMs that only run, and of Nexus's own affairs."""
    out, size, n = [], 0, 0
    while size < chunk_bytes:
        at = START + timedelta(seconds=second, microseconds=n * 37 % 1_000_000)
        stamp = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        if n % 2:
            record = {
                "msg": "request completed", "v": 0, "name": "SledAgent", "level": 30, "time": stamp,
                "hostname": "BRM1", "pid": 600, "uri": f"/vmms/{uid(f'quiet {n % 400}')}/state", "method": "GET",
                "req_id": uid(f"{second} {n}"), "component": "dropshot (SledAgent)", "file": "server.rs:874",
                "remote_addr": "[fd00:1122:3344:103::4]:59200", "local_addr": "[fd00:1122:3344:107::1]:12345",
                "latency_us": 180 + n % 90, "response_code": 200,
            }  # fmt: skip
        else:
            record = {
                "msg": NOISE[n // 2 % len(NOISE)], "v": 0, "name": "nexus", "level": 20, "time": stamp,
                "hostname": "oxz_nexus_1", "pid": 90, "component": "ServerContext", "actor_id": uid("actor"),
                "result": f"Ok({{ action: Query, n: {n} }})", "resource": "Database", "authenticated": True,
            }  # fmt: skip
        line = json.dumps(record, separators=(",", ":")) + "\n"
        out.append(line)
        size += len(line)
        n += 1
    return "".join(out)


def write(path, total_bytes, *, packed):
    opener = gzip.open if packed else open
    # one stretch of noise is made once and written with each life: what is read must be big, not how it was made
    with opener(path, "wt") as file:
        stretch = noise(0, total_bytes // LIVES)
        for n in range(LIVES):
            log, second = Log("BRM1", start=START), n * EVERY_S
            vm = f"vm-{n}"
            log.register(second, vm, vm)
            log.starts(second + 1, vm)
            log.stops(second + 20, vm, teardown=70 if n == LIVES // 2 else 6)
            file.write(log.text())
            moment = (START + timedelta(seconds=second)).isoformat(timespec="seconds")[:19]
            file.write(stretch.replace(START.isoformat(timespec="seconds")[:19], moment))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.big_log")
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--verify", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log, scenario = Path(folder) / "big.log", Path(folder) / "big.yaml"
        write(log, options.mb * 2**20, packed=options.gzip)
        command = [sys.executable, "-m", "sim_sled", "import", str(log), "--out", str(scenario)]
        started = time.perf_counter()
        done = subprocess.run(command + ["--verify"] * options.verify, check=False, stderr=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = scenario.read_text() if scenario.exists() else ""
        print(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "")
        found = text.count("\n- name: ") and f"vm-{LIVES // 2}-teardown-takes-70" in text
        packed, cpu = " (packed)" if options.gzip else "", used.ru_utime + used.ru_stime
        print(
            f"{options.mb} MB of lines{packed}: {seconds:.0f} s, {cpu:.0f} s of CPU, {used.ru_maxrss / 1024:.0f} MB"
        )
        print(f"{text.count('create:')} instances, the slow one {'found' if found else 'NOT found'}")
    return 0 if done.returncode == 0 and found else 1


if __name__ == "__main__":
    raise SystemExit(main())
