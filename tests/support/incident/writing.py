"""Logs as sled agents, Nexus and Propolis write them, for tests of `import` (LG 2).

Times are seconds from 2026-08-24T09:00:00Z on the clock of whoever writes.
"""

import json
import uuid
from datetime import UTC, datetime, timedelta

START = datetime(2026, 8, 24, 9, tzinfo=UTC)
LEVELS = {"I": 30, "W": 40, "E": 50, "D": 20}


def uid(word):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, word))


def stamp(at, start=START):
    text = (start + timedelta(seconds=at)).isoformat(timespec="microseconds").replace("+00:00", "")
    return text.rstrip("0").rstrip(".") + "Z" if "." in text else text + "Z"


class Log:
    """One file. `line` writes any record; the rest are the messages of LG 2 by what they mean."""

    def __init__(self, host="BRM1", program="SledAgent", start=START, pid=600):
        self.host, self.program, self.start, self.pid = host, program, start, pid
        self.lines = []

    def line(self, at, msg, level="I", host=None, **fields):
        record = {"msg": msg, "v": 0, "name": self.program, "level": LEVELS[level], "time": stamp(at, self.start)}
        record |= {"hostname": host or self.host, "pid": self.pid, **fields}
        self.lines.append(json.dumps(record, separators=(",", ":")))

    def raw(self, text):
        self.lines.append(text)

    def text(self):
        return "".join(f"{line}\n" for line in self.lines)

    def save(self, folder, name="sled.log"):
        path = folder / name
        path.write_text(self.text())
        return str(path)

    # ---- the sled agent

    def ids(self, vm):
        return {
            "instance_id": uid(f"instance {vm.partition('/')[0]}"),
            "propolis_id": uid(f"vmm {vm}"),
            "component": "InstanceManager",
        }

    def request(self, at, vm, op, status=200, latency=0.01, req_id=None, **more):
        method, path = {
            "register": ("PUT", "/vmms/{}"), "put": ("PUT", "/vmms/{}/state"), "get": ("GET", "/vmms/{}/state"),
            "unregister": ("DELETE", "/vmms/{}"),
        }[op]  # fmt: skip
        uri = path.format(uid(f"vmm {vm}"))
        fields = {
            "uri": uri,
            "method": method,
            "req_id": req_id or uid(f"{at} {vm} {op}"),
            "component": "dropshot (SledAgent)",
        }
        fields["latency_us"] = round(latency * 1e6)
        if status is None:
            self.line(at, "request handling cancelled (client disconnected)", "W", **fields, **more)
        else:
            self.line(at, "request completed", response_code=status, **fields, **more)

    def register(self, at, vm, hostname=None, cpus=2, memory_mb=4096, migration=None, status=200, latency=0.038):
        config = f'InstanceSledLocalConfig {{ hostname: Hostname("{hostname or vm.partition("/")[0]}"), nics: [] }}'
        spec = f"VmmSpec(InstanceSpec {{ board: Board {{ cpus: {cpus}, memory_mb: {memory_mb} }} }})"
        told = f"Some({migration})" if migration else "None"
        self.line(
            at,
            "ensuring instance is registered",
            **self.ids(vm),
            local_config=config,
            propolis_spec=spec,
            migration_id=told,
        )
        self.request(at + latency, vm, "register", status, latency)

    def starts(self, at, vm, took=6.0):
        self.line(at, f"Configuring new Omicron zone: oxz_propolis-server_{uid(f'vmm {vm}')}", **self.ids(vm))
        self.request(at + took - 0.1, vm, "put", latency=took - 0.1)
        self.observes(at + took, vm, "Running", gen=3)

    def observes(self, at, vm, state, gen=3, publish=True):
        observed = (
            f"ObservedPropolisState {{ vmm_state: PropolisInstanceState({state}), migration_in: None, "
            f"migration_out: None, time: {stamp(at)} }}"
        )
        self.line(at, "observed new Propolis state", **self.ids(vm), state=observed)
        if publish:
            self.publishes(at + 0.001, vm, state, gen)

    def publishes(self, at, vm, state, gen=3, migration_in="None", migration_out="None"):
        body = (
            f"SledVmmState {{ vmm_state: VmmRuntimeState {{ state: {state}, generation: Generation({gen}), "
            f"time_updated: {stamp(at)} }}, migration_in: {migration_in}, migration_out: {migration_out} }}"
        )
        self.line(at, "Publishing instance state update to Nexus", **self.ids(vm), state=body)

    def not_taken(self, at, vm, status=500, retry="250ms", final=False):
        text = (
            "Communication Error: error sending request"
            if status is None
            else f"Error Response: status: {status} X; headers: {{}}"
        )
        if final:
            self.line(at, f"Failed to publish state to Nexus, will not retry: {text}", "E", **self.ids(vm))
        else:
            self.line(
                at, f"Failed to publish instance state to Nexus: {text}", "W", **self.ids(vm), retry_after=retry
            )

    def stops(self, at, vm, teardown=6.0):
        """A stop that Nexus asked for: put, stopping, stopped, gone, and told after the zone bundle."""
        self.request(at, vm, "put")
        self.observes(at + 0.01, vm, "Stopping", gen=5)
        self.observes(at + 0.04, vm, "Stopped", gen=6)
        self.observes(at + 0.7, vm, "Destroyed", gen=7, publish=False)
        self.publishes(at + 0.7 + teardown, vm, "Destroyed", gen=7)
        self.line(at + 0.8 + teardown, "instance runner exited main loop", **self.ids(vm))

    def agent_starts(self, at, listens):
        self.line(at, "SledAgent::new(..) starting", component="SledAgent")
        self.line(listens, "listening", component="dropshot (SledAgent)", local_addr="[fd00::1]:12345")

    # ---- Nexus

    def user(self, at, vm, verb, status=202, key=None):
        key = key or uid(f"instance {vm}")
        uri = f"/v1/instances/{key}/{verb}?project=p"
        self.line(at, "request completed", uri=uri, method="POST", component="dropshot_external",
                  req_id=uid(f"{at}{vm}{verb}"), latency_us=9000, response_code=status)  # fmt: skip

    def received(self, at, vm, state, gen):
        runtime = f"VmmRuntimeState {{ state: {state}, generation: Generation({gen}), time_updated: {stamp(at)} }}"
        vmm = uid(f"vmm {vm}")
        self.line(at, "received new VMM runtime state from sled agent", propolis_id=vmm, uri=f"/vmms/{vmm}",
                  method="PUT", component="dropshot_internal", vmm_state=runtime)  # fmt: skip


def nexus(offset=0.0):
    """A Nexus whose clock is `offset` seconds ahead."""
    return Log("oxz_nexus_1", "nexus", START + timedelta(seconds=offset))
