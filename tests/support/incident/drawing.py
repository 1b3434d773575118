"""Incidents drawn by a seed: what happened is known, and the logs of it are written as the programs of a year did.

A `World` has hosts, instances and their VMMs; its verbs (`boot`, `stop`, ...) write into the logs of everybody who
took part and note the truth: what users wanted, which states each VMM went through, what departed from a normal day.
"""

import random

from support.incident.eras import ERAS, Agent, Nexus, Propolis, uid

CHECK_S = 30
"""Between two health checks of a VMM."""


class Instance:
    def __init__(self, name, drawn):
        self.name, self.id = name, uid("instance", name, drawn.random())
        self.ncpus, self.memory_mb = drawn.choice([1, 2, 4, 8]), 1024 * drawn.choice([2, 4, 8, 16])
        self.vmms, self.vmm, self.free = [], None, 0.0


class Vmm:
    """`runs`, `ends`: true times from which on and until which its agent answers for it; `since`: it runs now."""

    def __init__(self, instance, agent, number):
        self.instance, self.agent = instance, agent
        self.id, self.gen = uid("vmm", instance.id, number), 1
        self.states, self.runs, self.since, self.ends, self.told = [], None, None, None, None
        self.busy, self.blocked, self.refusals = [], 0.0, []
        self.zone = None


class Fault:
    """What must be a rule: `kinds` of actions, on whom, and numbers with their tolerance."""

    def __init__(self, name, kinds, who=None, *, required=True, **near):
        self.name, self.kinds, self.who, self.required, self.near = name, kinds, who, required, near

    def __repr__(self):
        return f"{self.name} of {self.who}: {'/'.join(self.kinds)} {self.near}"


class World:
    def __init__(self, seed):
        self.seed, self.drawn = seed, random.Random(seed)
        d = self.drawn
        self.era = d.choice(ERAS)
        serials = d.sample(range(42990000, 42999999), d.choice([1, 2, 2, 3]))
        self.agents = [
            Agent(self.era, d, f"BRM{n}", skew=0.0 if i == 0 else d.choice([0.0, 0.4, -1.35, 3.0, -20.0]))
            for i, n in enumerate(sorted(serials))
        ]
        self.nexus = Nexus(self.era, d, skew=d.choice([0.0, 0.4, -1.35, 12.0]))
        self.with_nexus = d.random() < 0.7
        self.with_propolis = d.random() < 0.5
        if not self.with_nexus and len(self.agents) > 1:  # nothing would tie their clocks together
            for agent in self.agents:
                agent.skew = 0.0
        self.wishes, self.faults, self.instances = [], [], []
        self.away = []  # (agent, from, until): its sled answers nobody
        self.storms = []  # (from, until, status, whose agent's)
        self.hangs = []  # (agent, from): answers no checks any more
        self.guessed = set()  # names of instances of which no log says what was asked for
        self.lost = {}  # vmm id: since when its agent knows nothing of it
        self.first_check = d.uniform(5, 25)
        self.end = 0.0

    @property
    def alive(self):
        """Agents that still write."""
        return [each for each in self.agents if each.ends_at == float("inf")]

    def fault(self, *args, **more):
        self.faults.append(Fault(*args, **more))

    def instance(self):
        d = self.drawn
        words = ["db", "web", "etl", "jump-host", "build-7", "no", "api", "cache", "ci-runner", "kafka"]
        taken = {each.name for each in self.instances}
        one = Instance(d.choice([w for w in words if w not in taken]), d)
        self.instances.append(one)
        return one

    # ---- what a report is

    def tells(self, at, vmm, state, **migration):
        """The agent sees a state and reports it; `at` is when Propolis came into it, or later: who has to repeat a
        report sees nothing meanwhile (LG 0 #8). Returns when it is free again.
        """
        vmm.gen += 1
        at = max(at, vmm.blocked)
        vmm.agent.observes(at, vmm, state)
        vmm.states.append(state.lower())
        if state == "Destroyed":
            return at
        # Propolis's Stopped is Stopping to Nexus (LG 4)
        return self.reports(at + 0.002, vmm, "Stopping" if state == "Stopped" else state, **migration)

    def reports(self, at, vmm, said, **migration):
        """27 to 29, until Nexus takes it."""
        pause = 0.25
        while (storm := self.storm_at(at, vmm.agent)) is not None:
            vmm.agent.publishes(at, vmm, said, **migration)
            wait = pause * self.drawn.uniform(0.5, 1.5)
            vmm.agent.not_taken(at + 0.01, vmm, storm or None, pause=wait)
            at, pause = at + 0.01 + wait, min(pause * 2, 180)
            vmm.blocked = at
        vmm.agent.publishes(at, vmm, said, **migration)
        self.nexus.received(at + 0.02, vmm, said)
        vmm.blocked = max(vmm.blocked, at + 0.003)
        return at

    def storm_at(self, at, agent):
        """The answer of a Nexus that takes no reports then: a status, "" for no answer; None: it takes them."""
        for since, until, status, whose in self.storms:
            if since <= at < until and (whose is None or whose is agent):
                return status
        return None

    def tells_end(self, at, vmm, state="Destroyed"):
        vmm.gen += 1
        if self.era.forgets_early:
            vmm.agent.of(at - 0.01, vmm, "instance runner exited main loop")
        at = self.reports(max(at, vmm.blocked), vmm, state)
        if not self.era.forgets_early:
            vmm.agent.of(at + 0.03, vmm, "instance runner exited main loop")
        vmm.ends = vmm.told = at

    # ---- normal days

    def wish(self, at, instance, verb, key=None):
        self.nexus.user(at, instance, verb, key=key)
        self.wishes.append((verb, instance.name, at))

    def new_vmm(self, instance, agent):
        vmm = Vmm(instance, agent, len(instance.vmms))
        if self.era.one_record and instance.vmm is not None:
            vmm.gen = instance.vmm.gen  # there is one record for all of them
        instance.vmms.append(vmm)
        instance.vmm = vmm
        if self.with_propolis:
            vmm.zone = Propolis(agent, vmm)
        return vmm

    def registers(self, at, instance, agent, reason="User"):
        """A start saga's first half; returns the VMM and when its put begins."""
        vmm = self.new_vmm(instance, agent)
        self.nexus.starts_saga(at + 0.1, vmm, reason)
        agent.registered(at + 0.2, vmm)
        vmm.gen += 1
        agent.publishes(at + 0.21, vmm, "Starting")
        self.nexus.received(at + 0.23, vmm, "Starting")
        return vmm, at + 0.3

    def boot(self, at, instance, agent=None, took=None, *, reason="User", waits=True):
        """From a user's wish (or Nexus's own) until it runs. Returns when."""
        agent = agent or self.drawn.choice(self.alive)
        took = took or self.drawn.uniform(3, 20)
        if reason == "User":
            self.wish(at + 0.08, instance, "start" if instance.vmms else "create", key=None)
        vmm, began = self.registers(at, instance, agent, reason)
        self.nexus.tell(began, "start saga: ensuring instance is running", "I", ("start_reason", reason))
        agent.zone(began + 0.01, vmm, began + took)
        if vmm.zone:
            vmm.zone.say(began + 0.7 * took, "Starting server...")
            vmm.zone.wants(began + 0.85 * took, "Run")
            vmm.zone.publishes(began + 0.86 * took, "Starting")
            vmm.zone.publishes(began + took, "Running")
        if waits:
            agent.asked(began + 0.9 * took, vmm, "put", 204, 0.9 * took)
        else:
            req_id = agent.asked(began + 60.003, vmm, "put", None, 60.003)
            agent.asked(began + 0.9 * took, vmm, "put", 204, 0, req_id=req_id, late=True)
        self.tells(began + took + 0.002, vmm, "Running")
        vmm.runs = vmm.since = began + took
        vmm.busy.append((began, began + took))
        instance.free = began + took + 1
        return vmm.runs

    def asks(self, at, vmm, verb, code=204, latency=0.015, **more):
        """Nexus's put to the sled, and what Propolis says of it."""
        if vmm.zone and code is not None and code < 300:
            vmm.zone.wants(at + 0.005, {"stop": "Stop", "reboot": "Reboot"}[verb])
        return vmm.agent.asked(at + latency, vmm, "put", code, latency, **more)

    def stop(self, at, instance, halting=0.2, teardown=None, *, asked=True):
        """From the wish until the end is told; returns when."""
        vmm = instance.vmm
        teardown = teardown or self.drawn.uniform(2, 15)
        if asked:
            self.wish(at + 0.1, instance, "stop")
            self.asks(at + 0.02, vmm, "stop")
        self.halts(at + 0.04, vmm, halting)
        gone = at + 0.04 + halting + 0.5
        self.ends(gone, vmm, teardown)
        return vmm.told

    def halts(self, at, vmm, halting):
        if vmm.zone:
            vmm.zone.publishes(at, "Stopping")
            vmm.zone.publishes(at + halting, "Stopped")
            vmm.zone.publishes(at + halting + 0.45, "Destroyed")
        self.tells(at + 0.003, vmm, "Stopping")
        self.tells(at + halting + 0.003, vmm, "Stopped")

    def ends(self, gone, vmm, teardown):
        """Propolis has ended; the agent takes the zone down and tells."""
        self.tells(gone, vmm, "Destroyed")
        vmm.agent.of(gone + 0.002, vmm, "State monitoring task complete")
        vmm.agent.bundles(gone + 0.01, vmm, gone + 0.9 * teardown)
        zone = ("zone", f"oxz_propolis-server_{vmm.id}")
        vmm.agent.of(gone + 0.9 * teardown, vmm, f"Halting and removing zone: {zone[1]}", "W")
        vmm.agent.of(gone + 0.95 * teardown, vmm, "Stopped and uninstalled zone", "I", zone)
        self.tells_end(gone + teardown, vmm)
        vmm.busy.append((gone, vmm.told))
        vmm.instance.free = vmm.told + 1

    def reboot(self, at, instance, took=None, *, asked=True):
        vmm = instance.vmm
        took = took or self.drawn.uniform(2, 10)
        if asked:
            self.wish(at + 0.1, instance, "reboot")
            self.asks(at + 0.02, vmm, "reboot")
        if vmm.zone:
            vmm.zone.publishes(at + 0.04, "Rebooting")
            vmm.zone.publishes(at + 0.04 + took, "Running")
        self.tells(at + 0.043, vmm, "Rebooting")
        self.tells(at + 0.043 + took, vmm, "Running")
        vmm.since = at + 0.043 + took
        instance.free = at + took + 1
        return at + took

    def migrate(self, at, instance, to, fails=None):
        """A migration to another sled. `fails`: in which phase."""
        source, mig = instance.vmm, uid("migration", instance.id, at)
        self.wish(at + 0.5, instance, "migrate")
        target = self.new_vmm(instance, to)
        to.registered(at + 0.2, target, migration=mig)
        began, moves = at + 0.25, at + 4.0
        to.zone(began, target, moves)
        to.asked(moves - 0.3, target, "put", 204, moves - 0.3 - began)
        sides = ((source, "out"), (target, "in"))
        for vmm, side in sides:
            self.tells(moves, vmm, "Migrating", **{f"migration_{side}": (mig, "InProgress")})
        phases = ["Sync", "RamPush", "Pause", "RamPushDirty", "Device", "Resume", "RamPull", "Server", "Finish"]
        over = moves + self.drawn.uniform(2, 8)
        shown = phases[: phases.index(fails) + 1] if fails else phases
        for n, phase in enumerate(shown):
            for vmm, side in sides:
                if vmm.zone:
                    vmm.zone.publishes(moves + (over - moves) * n / len(phases), "Migrating", phase, side, mig)
        names = [("migration_id", mig), ("src_propolis_id", source.id), ("target_propolis_id", target.id)]
        names += [("instance_id", instance.id)]
        if fails:
            for vmm, side in sides:
                if vmm.zone:
                    text = "migration out failed, resuming" if side == "out" else "migration in failed"
                    error = ("error", "RemoteError(Destination, Protocol)")
                    vmm.zone.say(over, text, "I" if side == "out" else "E", [], [error])
            if source.zone:
                source.zone.publishes(over + 0.01, "Running", "Error", "out", mig)
            self.tells(over + 0.02, source, "Running", migration_out=(mig, "Failed"))
            self.tells(over + 0.03, target, "Failed", migration_in=(mig, "Failed"))
            target.ends = target.told = over + 0.1
            self.nexus.tell(over + 0.3, "instance update (migration failed): clearing migration IDs", "I", *names)
            instance.vmm = source
            self.fault("migration fails", ("MigrationFate",), instance.name)
            instance.free = over + 2
            return
        if target.zone:
            target.zone.publishes(over, "Running", "Finish", "in", mig)
        if source.zone:
            source.zone.publishes(over + 0.02, "Stopping", "Finish", "out", mig)
            source.zone.publishes(over + 0.5, "Destroyed", "Finish", "out", mig)
        self.tells(over + 0.02, target, "Running", migration_in=(mig, "Completed"))
        self.tells(over + 0.03, source, "Stopping", migration_out=(mig, "Completed"))
        self.tells(over + 0.6, source, "Destroyed")
        source.agent.bundles(over + 0.61, source, over + 4)
        self.tells_end(over + 5, source)
        done = "instance update (migration completed): setting active VMM ID to target and clearing migration IDs"
        self.nexus.tell(over + 0.3, done, "I", *names)
        target.runs = target.since = over
        instance.free = over + 7

    def reincarnates(self, at, instance, agent=None):
        """Nexus starts it again by itself, in the years in which it does."""
        if not self.era.restarts:
            instance.free = float("inf")
            return
        reason = ("reincarnation_reason", "instance failed")
        self.nexus.tell(at, "attempting to reincarnate instance...", "I", reason, ("instance_id", instance.id))
        self.boot(at + 0.1, instance, agent, reason="AutoRestart")

    def next_check(self, after):
        n = -(-(after - self.first_check) // CHECK_S)
        return self.first_check + CHECK_S * max(0, n)

    # ---- at the end: health checks, and what a log is full of

    def checks(self):
        if not self.era.watches:
            return
        vmms = [each for one in self.instances for each in one.vmms if each.runs is not None]
        at = self.first_check
        while at < self.end:
            for n, vmm in enumerate(vmms):
                ends = self.end if vmm.ends is None else vmm.ends
                if vmm.runs - 2 <= at <= ends + 0.0:
                    self.check(at + n * 0.003, vmm)
            at += CHECK_S

    def check(self, at, vmm):
        self.nexus.of(at, vmm, "updating instance state", "D", ("state", "SledVmmState { .. }"))
        if any(agent is vmm.agent and since <= at < until for agent, since, until in self.away):
            self.nexus.of(at + 0.01, vmm, self.era.unreachable, "I", ("error", "error sending request"))
            return
        if self.lost.get(vmm.id, float("inf")) <= at:
            return  # told by the fault that lost it
        if any(agent is vmm.agent and since <= at for agent, since in self.hangs):
            vmm.agent.asked(at + 60.003, vmm, "get", None, 60.003)
            return
        for since, until, code, why in vmm.refusals:
            if since <= at < until:
                more = {"external": "Service Unavailable", "internal": why}
                vmm.agent.asked(at + 0.0005, vmm, "get", code, 0.0001, **more)
                return
        for since, until in vmm.busy:
            if since < at < until:
                if until - at < 60:
                    vmm.agent.asked(until + 0.005, vmm, "get", 200, until + 0.005 - at)
                elif self.era.cancels:
                    req_id = uid("slow", at, vmm.id)
                    vmm.agent.asked(at + 60.002, vmm, "get", None, 60.002, req_id=req_id)
                    vmm.agent.asked(until + 0.006, vmm, "get", 200, 0, req_id=req_id, late=True)
                return
        vmm.agent.asked(at + 0.0005, vmm, "get", 200, 0.0002)

    def gone_check(self, at, vmm, code=404):
        """A check of a VMM that its agent knows nothing of: Nexus takes it for failed."""
        req_id = vmm.agent.asked(at, vmm, "get", code, 0.0003, external="Not Found", internal="VMM with ID not found")
        error = self.nexus.refused(at + 0.003, vmm, "x", code, req_id)
        self.nexus.lines.pop()
        told = "sled-agent error indicates that this instance's VMM has failed!"
        self.nexus.of(at + 0.004, vmm, told, "I", ("error", error))

    def noise(self):
        """Most of a log (LG 2.2 #110, 2.1 #57), and what is no record (LG 1.1)."""
        d = self.drawn
        for scribe in [*self.agents, self.nexus]:
            for _ in range(d.randrange(20, 80)):
                at = d.uniform(0, self.end)
                if any(agent is scribe and since - 1 <= at < until + 1 for agent, since, until in self.away):
                    continue
                if scribe is self.nexus:
                    scribe.tell(at, d.choice(["authorize result", "roles", "activation complete"]), "D", ("n", 1))
                else:
                    msg = d.choice(["accepted connection", "Mapping virtual NIC to physical host"])
                    scribe.say(at, msg, "I", [("component", "dropshot (SledAgent)")])
            if d.random() < 0.4:
                at = d.uniform(0, self.end)
                scribe.raw(at, "thread 'tokio-runtime-worker' panicked at x.rs:1:2:\n{ oops\nnote: run with `RUST_")
                scribe.raw(d.uniform(0, self.end), "")
        return self
