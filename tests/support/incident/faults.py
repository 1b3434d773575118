"""What may go wrong in a drawn incident: one function for each kind that `import` has to know (docs/importing.md).

Each is given a world, an instance that runs (or is about to be started) and a time; it writes the logs of everybody
and notes what must become a rule. Whoever cannot happen in the world's year, or with its hosts, says so (`Unfit`).
"""

from datetime import UTC, datetime

from support.incident.drawing import CHECK_S


class Unfit(Exception):
    """This cannot happen in such a world."""


def need(fits):
    if not fits:
        raise Unfit


def slow_start(w, one, at):
    took = w.drawn.uniform(35, 55)
    w.boot(at, one, took=took)
    w.fault("slow start", ("Delay",), one.name, delay=(took, 1), edge=("starting", "running"))


def slow_start_for_which_nobody_waits(w, one, at):
    """The caller gives up after a minute, and the sled goes on."""
    need(w.era.cancels)
    took = w.drawn.uniform(70, 250)
    w.boot(at, one, took=took, waits=False)
    w.fault("slow start", ("Delay",), one.name, delay=(took, 1), edge=("starting", "running"))


def slow_stop(w, one, at):
    halting = w.drawn.uniform(8, 90)
    w.stop(at, one, halting=halting)
    w.fault("slow stop", ("Delay",), one.name, delay=(halting, 0.5), edge=("stopping", "stopped"))


def slow_teardown(w, one, at):
    teardown = w.drawn.uniform(30, 200)
    w.stop(at, one, teardown=teardown)
    w.fault("slow teardown", ("Delay",), one.name, delay=(teardown, 1), edge=("stopped", "destroyed"))
    w.fault("checks meanwhile", ("Hang", "Delay"), one.name, required=False)


def register_refused(w, one, at):
    """A start saga that unwinds; its user tries again."""
    code = w.drawn.choice([500, 503])
    agent = w.drawn.choice(w.alive)
    w.wish(at + 0.08, one, "start" if one.vmms else "create")
    vmm = w.new_vmm(one, agent)
    w.nexus.starts_saga(at + 0.1, vmm)
    why = "Instance error: Failure from the OPTE port manager: Failed to create OPTE port: No more addresses"
    req_id = agent.registered(at + 0.25, vmm, code, 0.052, why)
    w.nexus.refused(at + 0.26, vmm, "start saga: sled agent failed to register instance", code, req_id)
    w.nexus.tell(at + 0.5, "start saga failed; returning instance to Stopped", "I", ("instance_id", one.id))
    w.nexus.tell(at + 0.5, "start saga unwound; instance may reincarnate", "I", ("instance_id", one.id))
    w.fault("register refused", ("Fail",), one.name, status=code, request="vmm_register")
    w.boot(at + w.drawn.uniform(20, 90), one)


def put_refused(w, one, at):
    verb, code = w.drawn.choice(["stop", "reboot"]), w.drawn.choice([500, 503])
    w.nexus.user(at + 0.1, one, verb, 500)
    w.wishes.append((verb, one.name, at))
    if not w.with_nexus:
        w.guessed.add(one.name)
    w.asks(at + 0.02, one.vmm, verb, code, external="Internal Server Error", internal="odd")
    w.fault("put refused", ("Fail",), one.name, status=code, request="vmm_put_state")
    w.stop(at + w.drawn.uniform(20, 60), one)


def put_hangs(w, one, at):
    need(w.era.cancels)
    w.nexus.user(at + 60.1, one, "stop", 500)
    w.wishes.append(("stop", one.name, at))
    w.asks(at + 0.02, one.vmm, "stop", None, 60.003)
    w.fault("put not answered", ("Hang",), one.name, lasts=(60, 0.5), request="vmm_put_state")
    w.stop(at + w.drawn.uniform(70, 100), one)


def checks_refused(w, one, at):
    need(w.era.watches)
    full = w.drawn.random() < 0.5
    code = 503 if full else 500
    why = "Failed to send request to Instance: channel at capacity (32)" if full else "odd"
    until = at + CHECK_S * w.drawn.randint(1, 4)
    one.vmm.refusals.append((at, until, code, why))
    one.free = until + 1
    w.fault("checks refused", ("Fail",), one.name, status=code, request="vmm_get_state")


def sled_answers_nobody(w, one, at):
    """Three VMs and more of one sled, whose checks hang from then on."""
    need(w.era.cancels and w.era.watches)
    agent = one.vmm.agent
    while sum(each.vmms and each.vmm.agent is agent and each.vmm.ends is None for each in w.instances) < 3:
        w.boot(at - 40, w.instance(), agent)
    for each in w.instances:
        if each.vmms and each.vmm.agent is agent:
            each.free = float("inf")
    w.hangs.append((agent, at))
    w.end = max(w.end, at + 150)
    w.fault("a sled that answers nobody", ("Hang",), agent.host, lasts=(60, 0.5))


def _storm(w, one, at, status, whose):
    lasts = w.drawn.uniform(20, 120)
    w.storms.append((at, at + lasts, status, whose))
    for each in w.instances:
        if each.vmms and each.vmm.ends is None and each.free <= at + 5:
            (w.reboot if w.drawn.random() < 0.5 else w.stop)(at + w.drawn.uniform(1, lasts - 3), each)
            each.free = max(each.free, each.vmm.blocked) + 1
    if not any(storm_shows(agent) for agent in w.agents):
        raise Unfit
    who = None if whose is None else whose.host
    if status:
        w.fault("Nexus's answers", ("NexusReplies",), who, status=status)
    else:
        w.fault("Nexus out of reach", ("Partition",), who)


def storm_shows(agent):
    return any("Failed to publish" in text for _, text in agent.lines)


def nexus_answers_500(w, one, at):
    _storm(w, one, at, w.drawn.choice([500, 503]), None)


def nexus_out_of_reach(w, one, at):
    _storm(w, one, at, "", None)


def report_lost(w, one, at):
    """Nexus refuses a report for good: 4xx."""
    vmm = one.vmm
    w.wish(at + 0.1, one, "stop")
    w.asks(at + 0.02, vmm, "stop")
    w.halts(at + 0.04, vmm, 0.2)
    w.tells(at + 0.7, vmm, "Destroyed")
    vmm.gen += 1
    vmm.agent.publishes(at + 6, vmm, "Destroyed")
    vmm.agent.not_taken(at + 6.02, vmm, 404, final=True)
    vmm.agent.of(at + 6.03, vmm, "instance runner exited main loop")
    vmm.ends, one.free = at + 6, float("inf")
    w.fault("a report refused for good", ("NexusReplies",), None, status=404)


def forgotten(w, one, at):
    """The agent has forgotten before it told, and a check meets 404 (omicron#6809)."""
    need(w.era.forgets_early and w.era.watches)
    vmm = one.vmm
    check = w.next_check(at + 5)
    at = check - w.drawn.uniform(1.5, 4)
    w.wish(at + 0.1, one, "stop")
    w.asks(at + 0.02, vmm, "stop")
    w.halts(at + 0.04, vmm, 0.03)
    gone = at + 0.8
    w.tells(gone, vmm, "Destroyed")
    w.gone_check(check + 0.4, vmm)
    told = check + w.drawn.uniform(1, 4)
    vmm.agent.bundles(gone + 0.01, vmm, told - 0.1)
    w.tells_end(told, vmm)
    vmm.ends = check - 0.1
    w.fault("forgotten before it is told", ("ForgetVmm",), one.name, hold=(told - gone, 0.3))
    one.free = float("inf")  # a Nexus of that time starts it again, against the user's wish


def _falls(w, one, at, agent=None):
    """A VMM that has failed, and what Nexus does then."""
    vmm = one.vmm
    w.tells(at, vmm, "Failed")
    vmm.agent.of(at + 0.05, vmm, "instance runner exited main loop")
    vmm.ends = at
    w.reincarnates(at + w.drawn.uniform(0.5, 2), one, agent)


def propolis_lost(w, one, at):
    kind = w.drawn.choice(["gone", "empty"])
    vmm, zone = one.vmm, ("zone", f"oxz_propolis-server_{one.vmm.id}")
    ran = at - vmm.since
    if kind == "gone":
        vmm.agent.of(at - 0.02, vmm, "Failed to poll Propolis state", "W", ("error", "x"), ("generation", 4))
        vmm.agent.of(at - 0.01, vmm, "Propolis zone is Way Gone!", "I", zone)
        vmm.agent.of(at - 0.005, vmm, "Propolis zone is gone, marking VMM as failed", "W")
    else:
        if vmm.zone:
            vmm.zone.say(at - 1, "Starting server...")
        msg = "Propolis monitor unexpectedly reported no instance, marking as failed"
        vmm.agent.of(at - 0.005, vmm, msg, "W")
    _falls(w, one, at)
    vmm.states.pop()  # nobody's Propolis was in it; the agent says so
    vmm.states.append("failed")
    w.fault("Propolis lost", ("KillPropolis",), one.name, delay=(ran, 1.5))


def propolis_silent(w, one, at):
    vmm = one.vmm
    for n in range(5):
        vmm.agent.of(at + n, vmm, "Failed to poll Propolis state", "W", ("error", "x"), ("generation", 4))
        told = "communication error checking up on Propolis, but the zone is still running..."
        vmm.agent.of(at + n + 0.1, vmm, told, "W", ("error", "x"))
    one.free = float("inf")
    w.fault("Propolis silent", ("KillPropolis",), one.name, delay=(at - vmm.since, 1.5))


def start_fails(w, one, at):
    agent = w.drawn.choice(w.alive)
    w.wish(at + 0.08, one, "start" if one.vmms else "create")
    vmm, began = w.registers(at, one, agent)
    took = w.drawn.choice([1.5, 4, 20])
    agent.of(began + 0.01, vmm, f"Configuring new Omicron zone: oxz_propolis-server_{vmm.id}")
    old = "instance setup failed: Err(X)" if w.era.one_record else "vmm setup failed: Err(X)"
    new = w.drawn.choice(["failed to set up Propolis zone", "failed to create Propolis VM"])
    msg = old if w.era.forgets_early else new
    agent.of(began + took, vmm, msg, "E", ("error", "No U.2 devices found"))
    agent.asked(began + took + 0.01, vmm, "put", 500, took, external="Internal Server Error", internal="odd")
    vmm.runs = None
    w.tells(began + took + 0.02, vmm, "Failed")
    vmm.states.pop()
    vmm.states.append("failed")
    vmm.ends = began + took + 0.1
    w.fault("a start that fails", ("SetState",), one.name, state="failed")
    w.reincarnates(began + took + 3, one)


def grace(w, one, at):
    vmm, lasted = one.vmm, w.drawn.choice([600, 600, 120])
    w.wish(at + 0.1, one, "stop")
    w.asks(at + 0.02, vmm, "stop")
    w.tells(at + 0.05, vmm, "Stopping")
    if vmm.zone:
        vmm.zone.publishes(at + 0.04, "Stopping")
    told = "Instance failed to stop within the grace period, terminating it violently!"
    vmm.agent.of(at + 0.05 + lasted, vmm, told, "W")
    w.tells_end(at + 2 + lasted, vmm)
    vmm.ends, one.free = at + lasted, at + lasted + 4
    w.fault("a stop beyond the grace", ("Stall",), one.name)


def stuck(w, one, at):
    vmm = one.vmm
    w.wish(at + 0.1, one, "stop")
    w.asks(at + 0.02, vmm, "stop")
    if vmm.zone:
        vmm.zone.publishes(at + 0.04, "Stopping")
    w.tells(at + 0.05, vmm, "Stopping")
    w.end, one.free = max(w.end, at + 200), float("inf")
    w.fault("stuck for ever", ("Stall",), one.name)


def _lost_with(w, agent, at, back, elsewhere):
    """Every VMM of an agent is lost at a time; the checks after it is back tell Nexus, which starts them again."""
    others = [each for each in w.agents if each is not agent]
    hit = [each for each in w.instances if each.vmms and each.vmm.agent is agent and each.vmm.ends is None]
    check = w.next_check(back + 1)
    for n, each in enumerate(hit):
        vmm = each.vmm
        w.lost[vmm.id] = back
        vmm.ends = back
        if not w.era.watches:
            each.free = float("inf")
            continue
        w.gone_check(check + n * 0.02, vmm)
        where = w.drawn.choice(others) if others and elsewhere else agent
        w.reincarnates(check + n * 0.02 + w.drawn.uniform(0.5, 2), each, where)
    w.end = max(w.end, check + 60)


def _quiet_at(w, agent, at):
    """Nothing that this agent takes part in goes on then."""
    for each in w.instances:
        if each.vmms and each.free > at and each.vmm.agent is agent and each.vmm.ends is None:
            raise Unfit


def agent_restarts(w, one, at):
    agent = one.vmm.agent
    _quiet_at(w, agent, at)
    down = w.drawn.uniform(3, 20)
    listens = at + down
    w.away.append((agent, at, listens))
    agent.say(at - 0.05, "accepted connection", "I", [("component", "dropshot (SledAgent)")])
    agent.pids.append((at, agent.pid + 1000))
    agent.starts(listens - min(2, down / 2), listens)
    w.fault("an agent that starts anew", ("RestartAgent",), agent.host, down=(down, 3))
    _lost_with(w, agent, at, listens, w.drawn.random() < 0.5)


def sled_reboots(w, one, at):
    agent = one.vmm.agent
    _quiet_at(w, agent, at)
    down = w.drawn.uniform(90, 300)
    listens = at + down
    w.away.append((agent, at, listens + 1))
    agent.say(at - 0.05, "accepted connection", "I", [("component", "dropshot (SledAgent)")])
    agent.pids.append((at, agent.pid + 1000))
    if w.drawn.random() < 0.5:
        agent.raw(listens - 5.2, "[ Aug 24 09:01:02 Enabled. ]")
        agent.raw(listens - 5.1, '[ Aug 24 09:01:02 Executing start method ("x"). ]')
        agent.starts(listens - 5, listens)
    else:
        agent.clock = datetime(1986, 12, 28, tzinfo=UTC)
        kept, agent.lines = agent.lines, []
        agent.starts(listens - 5, listens)
        agent.lines, agent.clock = kept + agent.lines, None
    agent.say(listens + 0.7, "Setting reservoir size to 100 bytes", "I", [("component", "VmmReservoirManager")])
    w.fault("a sled that boots", ("RebootSled",), agent.host, down=(down, 10))
    _lost_with(w, agent, at, listens + 1, True)


def sled_without_power(w, one, at):
    need(len(w.agents) > 1 and w.era.unreachable.startswith("sled-agent") and w.with_nexus)
    agent = one.vmm.agent
    _quiet_at(w, agent, at)
    w.away.append((agent, at, float("inf")))
    agent.ends_at = at
    check = w.next_check(at)
    noticed = check + CHECK_S * w.drawn.randint(1, 3)
    others = [each for each in w.agents if each is not agent]
    hit = [each for each in w.instances if each.vmms and each.vmm.agent is agent and each.vmm.ends is None]
    for n, each in enumerate(hit):
        vmm = each.vmm
        vmm.ends = noticed - 1
        told = "instance is assigned to a VMM on a sled that is not in A0, marking it as Failed"
        w.nexus.of(noticed + n * 0.02, vmm, told, "I", ("sled_power_state", "A2"))
        w.reincarnates(noticed + n * 0.02 + 0.5, each, w.drawn.choice(others))
    w.end = max(w.end, noticed + 60)
    w.fault("a sled without power", ("PowerOffSled",), agent.host, when=(at, 31))
    w.fault("... which is expunged as well", ("ExpungeSled",), agent.host, required=False)


def sled_expunged(w, one, at):
    need(len(w.agents) > 1 and w.era.restarts and w.with_nexus)
    agent = one.vmm.agent
    _quiet_at(w, agent, at)
    w.away.append((agent, at, float("inf")))
    agent.ends_at = at
    noticed = w.next_check(at + 5)
    others = [each for each in w.agents if each is not agent]
    hit = [each for each in w.instances if each.vmms and each.vmm.agent is agent and each.vmm.ends is None]
    for n, each in enumerate(hit):
        each.vmm.ends = noticed - 1
        told = "instance is assigned to a VMM on an Expunged sled; marking it as Failed"
        w.nexus.of(noticed + n * 0.02, each.vmm, told)
        w.reincarnates(noticed + n * 0.02 + 0.5, each, w.drawn.choice(others))
    w.end = max(w.end, noticed + 60)
    w.fault("an expunged sled", ("ExpungeSled",), agent.host, when=(noticed, 1))
    w.fault("... whose power is off", ("PowerOffSled",), agent.host, required=False)


def fails_without_a_word(w, one, at):
    ran = at - one.vmm.since
    _falls(w, one, at)
    w.fault("a failure without a reason", ("SetState",), one.name, state="failed", delay=(ran, 1))


def migration_fails(w, one, at):
    need(len(w.alive) > 1 and not w.era.one_record)
    to = w.drawn.choice([each for each in w.alive if each is not one.vmm.agent])
    w.migrate(at, one, to, w.drawn.choice(["Sync", "RamPush", "Pause", "Device"]))


def migration(w, one, at):
    need(len(w.alive) > 1 and not w.era.one_record)
    w.migrate(at, one, w.drawn.choice([each for each in w.alive if each is not one.vmm.agent]))


def guest_halts(w, one, at):
    vmm, ran = one.vmm, at - one.vmm.since
    if vmm.zone:
        vmm.zone.say(at + 0.02, "Halting due to VM suspend event", "I", [("component", "vm_state_driver")])
    w.stop(at, one, asked=False)
    told = "instance update (active VMM destroyed): guest shut itself down"
    if w.era.watches:
        w.nexus.tell(vmm.told + 0.5, told, "I", ("propolis_id", vmm.id), ("instance_id", one.id))
    w.fault("a guest that halts", ("Guest",), one.name, event=("halt",), delay=(ran, 1))


def guest_resets(w, one, at):
    ran = at - one.vmm.since
    fault = w.drawn.random() < 0.5
    if one.vmm.zone:
        why = "triple fault on vCPU 0" if fault else "chipset-driven reset"
        one.vmm.zone.say(at + 0.02, f"Resetting due to {why}", "I", [("component", "vm_state_driver")])
    w.reboot(at, one, asked=False)
    w.fault("a guest that resets", ("Guest",), one.name, event=("reset", "triple-fault"), delay=(ran, 1))


def nexus_restarts(w, one, at):
    need(w.with_nexus)
    w.nexus.tell(at, "setting up nexus server", "I")
    w.fault("a Nexus that starts anew", ("RestartNexus",), None, when=(at, 1))
    one.free = max(one.free, at + 5)


STARTS = (slow_start, slow_start_for_which_nobody_waits, register_refused, start_fails)
"""Those that begin with a VM that does not run."""
RUNNING = (
    slow_stop, slow_teardown, put_refused, put_hangs, checks_refused, sled_answers_nobody, nexus_answers_500,
    nexus_out_of_reach, report_lost, forgotten, propolis_lost, propolis_silent, grace, stuck, agent_restarts,
    sled_reboots, sled_without_power, sled_expunged, fails_without_a_word, migration_fails, migration, guest_halts,
    guest_resets, nexus_restarts,
)  # fmt: skip
