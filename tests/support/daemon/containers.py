"""Five containers of a control plane as network namespaces on a bridge: run it inside of namespaces of its own.

Its arguments are those of the sled. Prints what the workload saw, as JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import dns.message
import dns.query
import dns.rdatatype

NET = "fd00:1122:3344:101::"
HOSTS = {"internal-dns": 3, "cockroach": 4, "nexus": 5, "sled": 6, "workload": 7}
TOKEN = "t"
LIMIT_S = 60
BODY = {"name": "web", "start": True}


def run(command):
    subprocess.run(command.split(), check=True)


def make_network():
    run("mount -t tmpfs tmpfs /run")
    run("ip link add br0 type bridge")
    run("ip link set br0 up")
    for name, number in HOSTS.items():
        run(f"ip netns add {name}")
        run(f"ip link add v{number} type veth peer name e{number}")
        run(f"ip link set e{number} netns {name}")
        run(f"ip link set v{number} master br0 up")
        run(f"ip -n {name} link set lo up")
        run(f"ip -n {name} addr add {NET}{number}/64 dev e{number} nodad")
        run(f"ip -n {name} link set e{number} up")


def start(host, log, *words):
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "sim_sled", *words]
    return subprocess.Popen(command, stdout=log, stderr=log)


def wait_until(what, happened):
    end = time.monotonic() + LIMIT_S
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"not within {LIMIT_S} s: {what}")
        time.sleep(0.1)


def workload(folder):
    """What runs in the container of the workload."""
    ready = ["ip", "netns", "exec", "sled", sys.executable, "-m", "sim_sled", "ready"]
    ready += ["--port-file", str(folder / "sled.json"), "--wait", str(LIMIT_S)]
    subprocess.run(ready, check=True, stdout=subprocess.DEVNULL)
    seen = subprocess.run(
        ["ip", "netns", "exec", "workload", sys.executable, __file__, "--workload"],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(seen.stdout)


async def in_the_workload():
    zone = "control-plane.oxide.internal"
    question = dns.message.make_query(f"_nexus._tcp.{zone}", dns.rdatatype.SRV)
    reply = dns.query.tcp(question, f"{NET}3", port=53, timeout=LIMIT_S)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://[{NET}6]:12345/inventory", headers={"api-version": "48.0.0"}) as answer:
            ledgered = (await answer.json())["ledgered_sled_config"]["generation"]
        control = f"http://[{NET}5]:8080"
        async with http.post(f"{control}/v1/instances", json=BODY, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
        state = None
        async with asyncio.timeout(LIMIT_S):
            while state != "running":
                async with http.get(f"{control}/v1/instances/web", headers=headers) as answer:
                    state = (await answer.json())["instance"]["run_state"]
                await asyncio.sleep(0.1)
    found = reply.answer[0][0].port == 12221 and reply.additional[0][0].address == f"{NET}5"
    print(json.dumps({"dns": found, "ledgered": ledgered, "instance": state}))


def main(sled):
    make_network()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "log").open("w+") as log:
            dns_sled = "8a2a0b61-6c55-4a31-8a0c-1c2ddd7d2a1b"
            dns_at = [
                f"--rss-internal-dns-{kind}-addr=[{NET}3]:{port}" for kind, port in (("dns", 53), ("http", 5353))
            ]
            nexus = ["nexus", f"[{NET}5]:12221", "--lockstep", f"[{NET}5]:12232"]
            started = [
                start("internal-dns", log, "serve", dns_sled, f"[{NET}3]:12345", f"[{NET}5]:12221", *dns_at),
                start("nexus", log, *nexus, "--control", f"[{NET}5]:8080", "--control-token", TOKEN),
                start("sled", log, "serve", *sled, "--port-file", str(folder / "sled.json")),
            ]
            try:
                wait_until("the sled listens", (folder / "sled.json").exists)
                print(json.dumps(workload(folder)))
            except BaseException:
                log.flush()
                sys.stderr.write((folder / "log").read_text())
                raise
            finally:
                for process in started:
                    process.terminate()
                for process in started:
                    process.wait(10)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    if sys.argv[1:] == ["--workload"]:
        asyncio.run(in_the_workload())
    else:
        main(sys.argv[1:])
