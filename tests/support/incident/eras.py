"""How sled agents, Propolis and Nexus wrote their lines over the years: keys, names, numbers and states (LG 1, 2).

Times are true seconds from the beginning of an incident; each program writes them by its host's own clock.
"""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta, timezone

LEVELS = {"I": 30, "W": 40, "E": 50, "D": 20}


class Era:
    """What was different in a year (LG 2.4)."""

    def __init__(self, name, start):
        self.name, self.start = name, start
        day = start.date().isoformat()
        self.instances_in_paths = day < "2024-08-27"
        self.one_record = day < "2023-10-11"  # no VMMs yet, only instances
        self.codes_are_text = day < "2025-05-16"
        self.watches = day >= "2024-05-10"
        self.cancels = day >= "2024-05-03"
        self.restarts = day >= "2024-09-27"
        self.state_in_message = day < "2025-04-08"
        self.forgets_early = day < "2025-04-08"
        self.gen = "gen" if day < "2026-04-21" else "generation"
        self.says_why_failed = day >= "2026-05-15"
        self.unreachable = (
            "sled-agent is unreachable" if day >= "2026-04-01" else "error checking up on instance"
        )  # 72
        self.zone = timezone(timedelta(hours=-7)) if day < "2024" else UTC
        self.has_file = day >= "2023-07-27"


ERAS = [
    Era("2023-09", datetime(2023, 9, 5, 14, tzinfo=UTC)),
    Era("2024-06", datetime(2024, 6, 20, 3, tzinfo=UTC)),
    Era("2025-03", datetime(2025, 3, 30, 23, tzinfo=UTC)),
    Era("2025-06", datetime(2025, 6, 2, 11, tzinfo=UTC)),
    Era("2026-08", datetime(2026, 8, 24, 9, tzinfo=UTC)),
]


_text = json.JSONEncoder(ensure_ascii=False).encode


class Scribe:
    """One program on one host. `lines` are (true time, text); `say` writes a record with keys in the order of slog,
    which repeats some of them.
    """

    def __init__(self, era, drawn, host, name, *, skew=0.0, pid=655):
        self.era, self.drawn, self.host, self.name, self.skew, self.pid = era, drawn, host, name, skew, pid
        self.lines = []
        self.pids = []  # of later processes: since when
        self.ends_at = float("inf")
        self.clock = None  # another beginning of time: a sled that has not found it yet

    def stamp(self, at):
        moment = (self.clock or self.era.start) + timedelta(seconds=at + self.skew)
        text = moment.astimezone(self.era.zone).isoformat(timespec="microseconds")
        whole, _, rest = text.partition(".")
        digits = f"{rest[:6]}{self.drawn.randrange(1000):03}".rstrip("0")
        zone = "Z" if self.era.zone is UTC else text[-6:]
        return f"{whole}.{digits}{zone}" if digits else f"{whole}{zone}"

    def say(self, at, msg, level="I", context=(), own=(), file="sled-agent/src/instance.rs:941"):
        pairs = [("msg", msg), ("v", 0), ("name", self.name), ("level", LEVELS[level]), ("time", self.stamp(at))]
        pid = next((pid for since, pid in reversed(self.pids) if at >= since), self.pid)
        pairs += [("hostname", self.host), ("pid", pid), *context]
        if self.era.has_file and self.name != "propolis-server":
            pairs.append(("file", file))
        pairs += own
        body = ",".join(f"{_text(key)}:{_text(value)}" for key, value in pairs)
        self.lines.append((at, "{" + body + "}"))

    def raw(self, at, text):
        self.lines.append((at, text))

    def request(self, at, method, uri, code, latency, *, component, req_id, external=None, internal=None, late=False):
        """`code` None: the caller had gone away (LG 1.2)."""
        context = [("uri", uri), ("method", method), ("req_id", req_id)]
        context += [("remote_addr", "[fd00:1122:3344:103::4]:59200"), ("local_addr", "[fd00:1122:3344:107::1]:12345")]
        context += [("component", component)]
        own = [("error_message_external", external), ("error_message_internal", internal)] if external else []
        if not late:
            own.append(("latency_us", round(latency * 1e6)))
        if code is None:
            self.say(at, "request handling cancelled (client disconnected)", "W", context, own, "dropshot/server.rs")
            return
        own.append(("response_code", str(code) if self.era.codes_are_text else code))
        msg = "request completed after handler was already cancelled" if late else "request completed"
        self.say(at, msg, "W" if late else "I", context, own, "dropshot/server.rs:874")

    def written(self):
        """Its lines in the order of the file."""
        return [text for at, text in sorted(self.lines, key=lambda each: each[0]) if at < self.ends_at]


def uid(*words):
    return str(uuid.UUID(int=random.Random(repr(words)).getrandbits(128), version=4))


class Agent(Scribe):
    """A sled agent; `vmm` has `instance`, `id`, `gen` and the `config` of its instance."""

    def __init__(self, era, drawn, host, *, skew):
        super().__init__(era, drawn, host, "SledAgent", skew=skew)

    def _about(self, vmm):
        ids = [("instance_id", vmm.instance.id), ("propolis_id", vmm.id), ("instance_id", vmm.instance.id)]
        return [*ids, ("component", "InstanceManager")]

    def of(self, at, vmm, msg, level="I", *own):
        self.say(at, msg, level, self._about(vmm), own)

    def asked(self, at, vmm, op, code=200, latency=0.01, **more):
        """A request that has ended."""
        method, path = {
            "register": ("PUT", ""), "put": ("PUT", "/state"), "get": ("GET", "/state"), "unregister": ("DELETE", ""),
        }[op]  # fmt: skip
        kind, who = ("instances", vmm.instance.id) if self.era.instances_in_paths else ("vmms", vmm.id)
        req_id = more.pop("req_id", None) or uid(self.host, at, vmm.id, op)
        self.request(
            at, method, f"/{kind}/{who}{path}", code, latency, component="dropshot (SledAgent)", req_id=req_id, **more
        )
        return req_id

    def registered(self, at, vmm, code=200, latency=0.038, why=None, migration=None):
        one = vmm.instance
        context = [("component", "InstanceManager")]
        size = f"ncpus: InstanceCpuCount({one.ncpus}), memory: ByteCount(ByteCount({one.memory_mb * 1024**2}))"
        if self.era.instances_in_paths:
            described = f'InstanceProperties {{ {size}, hostname: "{one.name}" }}'
            own = [("hardware", f"InstanceHardware {{ properties: {described}, nics: [] }}")]
        else:
            spec = f"board: Board {{ cpus: {one.ncpus}, memory_mb: {one.memory_mb}, chipset: I440Fx }}"
            own = [("metadata", f"InstanceMetadata {{ silo_id: {uid('silo')}, project_id: {uid('project')} }}")]
            own += [("local_config", f'InstanceSledLocalConfig {{ hostname: Hostname("{one.name}"), nics: [] }}')]
            own += [("propolis_spec", f"VmmSpec(InstanceSpec {{ {spec}, components: {{}} }})")]
        told = f"Some({migration})" if migration else "None"
        own += [("migration_id", told), ("propolis_id", vmm.id), ("instance_id", one.id)]
        self.say(at - latency, "ensuring instance is registered", "I", context, own, "instance_manager.rs:715")
        if code == 200:
            self.say(at - latency, "registering new instance", "I", context, own[-3:], "instance_manager.rs:749")
            self.of(at - latency + 0.001, vmm, "initializing new Instance", "I", ("state", "InstanceInitialState {}"))
        refused = {} if why is None else {"external": "Internal Server Error", "internal": why}
        return self.asked(at, vmm, "register", code, latency, **refused)

    def zone(self, began, vmm, until):
        """14 to 21: the zone and its Propolis; the put is answered a little before it runs."""
        zone, span = f"oxz_propolis-server_{vmm.id}", until - began
        self.of(began, vmm, f"Configuring new Omicron zone: {zone}")
        self.of(began + 0.02 * span, vmm, f"Installing Omicron zone: {zone}")
        old = self.era.instances_in_paths
        self.of(began + 0.4 * span, vmm, "Zone booting" if old else f"Booting {zone} zone", "I", ("zone", zone))
        noise = f'wait for service x in zone Some("{zone}") failed: Property not found. retry in 60ms'
        self.of(began + 0.45 * span, vmm, noise, "W", ("zone", zone))
        self.of(began + 0.7 * span, vmm, f"Started propolis in zone: {zone}")
        self.of(began + 0.75 * span, vmm, "Propolis HTTP server online")
        self.of(began + 0.8 * span, vmm, "result of instance_ensure call is Ok(ResponseValue { status: 201 })")

    def observes(self, at, vmm, state):
        named = "instance_state" if self.era.one_record else "vmm_state"
        seen = (
            f"ObservedPropolisState {{ {named}: PropolisInstanceState({state}), migration_in: None, "
            f"migration_out: None, time: {self.stamp(at)} }}"
        )
        if self.era.state_in_message:
            self.of(at, vmm, f"Observing new propolis state: {seen}")
        else:
            self.of(at, vmm, "observed new Propolis state", "I", ("state", seen))

    def publishes(self, at, vmm, state, migration_in=None, migration_out=None):
        """27; `state` as the agent says it. Its generation is the VMM's."""
        gen = f"{self.era.gen}: Generation({vmm.gen})"
        sides = ", ".join(
            f"migration_{side}: " + ("None" if what is None else
            f"Some(MigrationRuntimeState {{ migration_id: {what[0]}, state: {what[1]}, gen: Generation(2) }})")
            for side, what in (("in", migration_in), ("out", migration_out))
        )  # fmt: skip
        if self.era.one_record:
            told = (
                f"InstanceRuntimeState {{ run_state: {state}, propolis_id: {vmm.id}, dst_propolis_id: None, "
                f"propolis_gen: Generation(1), ncpus: InstanceCpuCount({vmm.instance.ncpus}), "
                f'hostname: "{vmm.instance.name}", gen: Generation({vmm.gen}), time_updated: {self.stamp(at)} }}'
            )
        else:
            runtime = f"VmmRuntimeState {{ state: {state}, {gen}, time_updated: {self.stamp(at)} }}"
            kind = "SledInstanceState" if self.era.instances_in_paths else "SledVmmState"
            told = f"{kind} {{ vmm_state: {runtime}, {sides} }}"
        self.of(at, vmm, "Publishing instance state update to Nexus", "I", ("state", told), ("propolis_id", vmm.id))

    def not_taken(self, at, vmm, status, *, final=False, pause=0.25):
        text = (
            "Communication Error: error sending request for url (http://[fd00:1122:3344:101::3]:12221/vmms/x)"
            if status is None
            else f"Error Response: status: {status} X; headers: {{}}; value: Error {{ error_code: None, message: "
            f'"X", request_id: "{uid("theirs", at)}" }}'
        )
        if final:
            self.of(at, vmm, f"Failed to publish state to Nexus, will not retry: {text}", "E")
        else:
            retry = ("retry_after", f"{pause * 1000:.6f}ms" if pause < 1 else f"{pause:.9f}s")
            self.of(at, vmm, f"Failed to publish instance state to Nexus: {text}", "W", retry)

    def bundles(self, at, vmm, until):
        name = f"oxz_propolis-server_{vmm.id}"
        context, zone = [("component", "ZoneBundler")], ("zone_name", name)
        self.say(at, "creating zone bundle", "I", context, [("context", "ZoneBundleContext {}"), zone])
        metadata = f'ZoneBundleMetadata {{ id: ZoneBundleId {{ zone_name: "{name}", bundle_id: x }} }}'
        self.say(until, "finished zone bundle", "I", context, [("metadata", metadata)])

    def starts(self, at, listens):
        """52, 53, 55."""
        self.say(at, "setting up sled agent server", "I", [("component", "SledAgent")])
        self.say(
            at + 0.2, "SledAgent::new(..) starting", "I", [("component", "SledAgent"), ("sled_id", uid(self.host))]
        )
        address = [("local_addr", "[fd00:1122:3344:107::1]:12345")]
        self.say(listens, "listening", "I", [*address, ("component", "dropshot (SledAgent)")])
        self.say(listens + 0.5, "Successfully put SledAgentInfo to nexus", "I", [("component", "SledAgent")])


class Propolis(Scribe):
    """In a zone of its own, with its sled's clock."""

    def __init__(self, agent, vmm):
        super().__init__(agent.era, agent.drawn, f"oxz_propolis-server_{vmm.id}", "propolis-server", skew=agent.skew)
        self.gen = 0

    def publishes(self, at, state, phase=None, side="out", migration="x"):
        self.gen += 1
        status = f"Some(InstanceMigrationStatus {{ id: {migration}, state: {phase} }})" if phase else "None"
        sides = {"in": "None", "out": "None"} | {side: status}
        body = f"InstanceMigrateStatusResponse {{ migration_in: {sides['in']}, migration_out: {sides['out']} }}"
        own = [("gen", self.gen), ("state", state), ("migration", body)]
        self.say(at, "publishing new instance state", "I", [("component", "vm_state_driver")], own)

    def wants(self, at, what):
        self.say(at, "requested state via API", "I", [], [("state", what)])


class Nexus(Scribe):
    """One Nexus zone."""

    def __init__(self, era, drawn, *, skew):
        self.id = uid("nexus", drawn.random())
        super().__init__(era, drawn, f"oxz_nexus_{self.id}" if era.has_file else "oxz_nexus", "nexus", skew=skew)

    def tell(self, at, msg, level="I", *own, context=()):
        who = [("component", "nexus"), ("component", "ServerContext"), ("name", self.id)]
        self.say(at, msg, level, [*context, *who], own, "nexus/src/app/instance.rs:2815")

    def user(self, at, instance, verb, status=None, key=None):
        key = key or instance.id
        method, path, good = {
            "create": ("POST", "", 201),
            "delete": ("DELETE", f"/{key}", 204),
        }.get(verb, ("POST", f"/{key}/{verb}", 202))
        uri, component = f"/v1/instances{path}?project=p", "dropshot_external"
        if verb == "migrate":
            uri, good, component = f"/instances/{instance.id}/migrate", 200, "dropshot_internal"
        req_id = uid("user", at, instance.id, verb)
        self.request(at, method, uri, status or good, 0.1, component=component, req_id=req_id)

    def received(self, at, vmm, state):
        """62, 63: a report was taken."""
        uri = f"/instances/{vmm.instance.id}" if self.era.instances_in_paths else f"/vmms/{vmm.id}"
        req_id = uid("pushed", at, vmm.id)
        context = [("uri", uri), ("method", "PUT"), ("req_id", req_id), ("component", "dropshot_internal")]
        why = "(FromSledAgent)" if state == "Failed" and self.era.says_why_failed else ""
        told = f"VmmRuntimeState {{ state: {state}{why}, {self.era.gen}: Generation({vmm.gen}), time_updated: x }}"
        own = [("vmm_state", told), ("propolis_id", vmm.id)]
        msg = "received new VMM runtime state from sled agent"
        if self.era.one_record:
            told = f"InstanceRuntimeState {{ run_state: {state}, propolis_id: x, gen: Generation({vmm.gen}) }}"
            own = [("runtime_state", told), ("instance_id", vmm.instance.id)]
        if self.era.instances_in_paths:
            msg = "received new runtime state from sled agent"
        self.tell(at, msg, "I", *own, context=context)
        self.request(at + 0.01, "PUT", uri, 204, 0.014, component="dropshot_internal", req_id=req_id)

    def of(self, at, vmm, msg, level="I", *own, task="instance_watcher"):
        context = [("vmm_id", vmm.id), ("sled_serial", vmm.agent.host), ("sled_id", uid(vmm.agent.host))]
        context += [("instance_id", vmm.instance.id), ("background_task", task)]
        self.tell(at, msg, level, *own, context=context)

    def starts_saga(self, at, vmm, reason="User"):
        saga = [("saga_id", uid("saga", vmm.id)), ("saga_name", "instance-start")]
        own = [("start_reason", reason), ("propolis_id", vmm.id), ("instance_id", vmm.instance.id)]
        self.tell(at, "moving instance to Starting state via saga", "I", *own, context=saga)
        own = [("start_reason", reason), ("sled_id", uid(vmm.agent.host)), ("instance_id", vmm.instance.id)]
        self.tell(at + 0.02, "start saga: ensuring instance is registered on sled", "I", *own, context=saga)

    def refused(self, at, vmm, msg, status, req_id):
        """An error of a sled as progenitor prints it: it has the sled's id of the request (LG 0 #6)."""
        saga = [("saga_id", uid("saga", vmm.id)), ("saga_name", "instance-start")]
        text = (
            f'Error Response: status: {status} X; headers: {{"content-type": "application/json", "x-request-id": '
            f'"{req_id}", "date": "x"}}; value: Error {{ error_code: Some("Internal"), message: "X", '
            f'request_id: "{req_id}" }}'
        )
        own = [("error", text), ("sled_id", uid(vmm.agent.host)), ("instance_id", vmm.instance.id)]
        self.tell(at, msg, "I", *own, context=saga)
        return text
