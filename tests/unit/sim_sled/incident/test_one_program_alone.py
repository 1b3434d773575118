"""`sim-sled import`: what a Nexus or a Propolis alone tells, and users who met an error."""

import pytest
from support.incident.importing import S, actions, import_, only
from support.incident.writing import Log, nexus, uid

from sim_sled.language.actions import Delay, ExpungeSled, Fail, PowerOffSled, SetState


def starts_saga(far, at, vm, reason="User"):
    ids = {"propolis_id": uid(f"vmm {vm}"), "instance_id": uid(f"instance {vm.partition('/')[0]}")}
    far.line(at, "moving instance to Starting state via saga", start_reason=reason, **ids)


def loads(scenario):
    return [(load.action(), load.at) for load in scenario.load]


def watched(far, at, vm, msg, **more):
    ids = {"instance_id": uid(f"instance {vm.partition('/')[0]}"), "vmm_id": uid(f"vmm {vm}"), "sled_serial": "BRM1"}
    far.line(at, msg, background_task="instance_watcher", **ids, **more)


@pytest.mark.parametrize("took", [7, 318])
def test_of_a_nexus_alone_starts_and_ends_take_as_long_as_it_heard(tmp_path, took):
    """omicron#5363: a stop is Stopping to Nexus until all is over."""
    far = nexus()
    starts_saga(far, 1, "web")
    far.received(9, "web", "Running", 3)
    far.user(60, "web", "stop")
    far.received(60.2, "web", "Stopping", 5)
    far.received(60.2 + took, "web", "Destroyed", 7)
    imported, scenario = import_(tmp_path, far)
    assert loads(scenario) == [("create", 0), ("stop", pytest.approx(59 * S, abs=0.1 * S))]
    assert "starting -> running: 8s" in imported.text
    if took > 25:
        rule, delay = only(scenario, Delay)
        assert (rule.when.edge, delay.base.at(0)) == ((("stopped", "destroyed"),), 318 * S)
        assert "as Nexus heard of it" in imported.text
    else:
        assert not scenario.rules
        assert "stopped -> destroyed: 7s" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("took", [2, 95])
def test_of_a_propolis_alone_its_start_is_there_and_may_be_slow(tmp_path, took):
    own = Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server")
    told = "publishing new instance state"
    own.line(0, "Starting server...")
    for at, state in ((0.2, "Creating"), (1, "Starting"), (1 + took, "Running")):
        own.line(at, told, gen=1, state=state)
    own.line(1.1, "starting block backend crucible-1")
    imported, scenario = import_(tmp_path, own)
    assert loads(scenario) == [("create", 0)]
    assert "ran before" not in imported.summary
    if took > 30:
        rule, delay = only(scenario, Delay)
        assert (rule.when.edge, delay.base.at(0)) == ((("starting", "running"),), 95 * S)
        assert "starting block backend crucible-1" in imported.text
    else:
        assert "starting -> running: 2s" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("verb", ["start", "migrate"])
def test_what_a_user_asked_for_and_met_an_error_after_it_had_begun_is_asked_for(tmp_path, verb):
    """A saga that unwinds answers with an error; who asked again asked twice."""
    log, far = Log(), nexus()
    if verb == "migrate":
        log.register(1, "web")
        log.starts(2, "web")
        uri = f"/instances/{uid('instance web')}/migrate"
        more = {"component": "dropshot_lockstep", "req_id": uid("r"), "latency_us": 500_000, "response_code": 500}
        far.line(60.5, "request completed", uri=uri, method="POST", **more)
        log.register(60.2, "web/2", "web", migration=uid("m"), status=500)
    else:
        far.user(60, "web", "start", 500)
        log.register(60.2, "web", status=500)
        far.user(90, "web", "start")
        log.register(90.2, "web/2", "web")
        log.starts(91, "web/2")
    imported, scenario = import_(tmp_path, log, far)
    assert [load.action() for load in scenario.load] == ["create", verb, *(["start"] if verb == "start" else [])]
    assert f"POST {verb}, 500, when it had begun" in imported.text
    only(scenario, Fail)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_user_who_did_not_wait_has_asked_once(tmp_path):
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    log.stops(40, "web")
    uri = f"/v1/instances/{uid('instance web')}/stop"
    asked = {"uri": uri, "method": "POST", "component": "dropshot_external", "req_id": uid("r")}
    far.line(40.5, "request handling cancelled (client disconnected)", "W", latency_us=500_000, **asked)
    far.line(47, "request completed after handler was already cancelled", "W", response_code=202, **asked)
    imported, scenario = import_(tmp_path, log, far)
    assert loads(scenario)[1:] == [("stop", pytest.approx(39 * S, abs=0.1 * S))]
    assert "POST stop, not waited for" in imported.text


def test_users_call_an_instance_by_a_name_and_delete_it_and_are_refused_and_all_that_is_told(tmp_path):
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    log.stops(40, "web")
    far.user(40, "web", "stop", key="shop")
    more = {"component": "dropshot_external", "latency_us": 9000}
    far.line(60, "request completed", uri="/v1/instances/shop", method="DELETE", response_code=204, **more)
    far.user(61, "web", "stop", 503, key="another")
    imported, scenario = import_(tmp_path, log, far)
    assert [load.action() for load in scenario.load] == ["create", "stop", "delete"]
    assert "a user's stop of 'another', of which nothing else is known: 503" in imported.summary
    assert "DELETE, 204" in imported.text


def test_what_is_asked_of_a_vm_that_a_user_started_does_not_wait_for_a_check(tmp_path):
    """The VMM before was refused: no check of it has to notice anything."""
    log, far = Log(), nexus()
    log.register(1, "web", status=500)
    far.user(30, "web", "start")
    log.register(30.1, "web/2", "web")
    log.starts(31, "web/2")
    far.user(60, "web", "stop")
    log.stops(60.1, "web/2")
    _, scenario = import_(tmp_path, log, far)
    assert loads(scenario)[2] == ("stop", pytest.approx(59 * S, abs=0.1 * S))


@pytest.mark.parametrize("kind", ["no power", "expunged"])
def test_a_vm_that_nexus_starts_again_elsewhere_ran_before_and_nobody_starts_it(tmp_path, kind):
    """What it has heard first of the new VMM comes long after its saga began."""
    far = nexus()
    for at in (1, 31):
        watched(far, at, "web", "updating instance state", state="Running")
    if kind == "no power":
        watched(far, 61, "web", "sled-agent is unreachable", error="timed out")
        not_on = "instance is assigned to a VMM on a sled that is not in A0, marking it as Failed"
        watched(far, 91, "web", not_on, sled_power_state="A2")
    else:
        watched(far, 91, "web", "instance is assigned to a VMM on an Expunged sled; marking it as Failed")
    reason = {"reincarnation_reason": "instance failed", "instance_id": uid("instance web")}
    far.line(91.5, "attempting to reincarnate instance...", **reason)
    starts_saga(far, 91.6, "web/2", "AutoRestart")
    far.received(100, "web/2", "Running", 3)
    imported, scenario = import_(tmp_path, far)
    assert loads(scenario) == [("create", 0)]
    assert len(actions(scenario, PowerOffSled if kind == "no power" else ExpungeSled)) == 1
    assert "already there" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_the_line_that_says_why_a_vm_failed_is_quoted(tmp_path):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.line(40, "use_only_these_disks: Removing instance", instance_id=uid("instance web"))
    log.publishes(40.2, "web", "Failed", 4)
    log.line(50, "request completed", uri=f"/disks/{uid('disk')}", method="PUT", response_code=500, latency_us=9)
    imported, _ = import_(tmp_path, log)
    assert "the agent ended a VMM whose disk was removed" in imported.text.partition("rules:")[2]
    assert "no line says why" not in imported.text
    assert "PUT disks of a VMM was answered 500" in imported.summary


def test_an_agent_that_ends_a_vm_by_force_may_say_that_it_saw_the_end(tmp_path):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.request(30, "web", "put")
    log.observes(30.1, "web", "Stopping", gen=4)
    grace = "Instance failed to stop within the grace period, terminating it violently!"
    log.line(630.1, grace, "W", **log.ids("web"))
    log.observes(630.2, "web", "Destroyed", gen=5)
    imported, _ = import_(tmp_path, log)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_registration_of_2023_has_its_size_in_its_initial_hardware(tmp_path):
    log = Log()
    size = "ncpus: InstanceCpuCount(4), memory: ByteCount(8589934592)"
    hardware = f'InstanceHardware {{ properties: InstanceProperties {{ {size}, hostname: "web" }} }}'
    log.line(1, "ensuring instance is registered", **log.ids("web"), initial_hardware=hardware)
    log.starts(2, "web")
    _, scenario = import_(tmp_path, log)
    made = scenario.load[0].create
    assert (made.hostname, made.ncpus, made.memory) == ("web", 4, 8 * 2**30)


def test_a_vm_that_ran_and_was_unregistered_ends_at_once(tmp_path):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.request(50, "web", "unregister", latency=2)
    imported, scenario = import_(tmp_path, log)
    rule, over = only(scenario, SetState)
    assert (rule.when.state, over.state.value) == (("running",), "destroyed")
    assert rule.do[0].base.at(0) == 40 * S
    assert "who unregistered it no line says" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize(
    "case", ["a user starts it", "nobody does", "Nexus does", "too soon to know", "no Nexus log"]
)
def test_what_nexus_leaves_failed_is_not_restarted_in_the_replay(tmp_path, case):
    """Its policy is in no line; what did not happen in more than a pass tells it."""
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    log.line(60, "Propolis zone is gone, marking VMM as failed", "W", **log.ids("web"))
    log.publishes(60.5, "web", "Failed", 4)
    again = {"a user starts it": 600, "Nexus does": 100, "no Nexus log": 600}.get(case)
    if case == "a user starts it":
        far.user(600, "web", "start")
    if case == "Nexus does":
        starts_saga(far, 99.9, "web/2", "AutoRestart")
    if again is not None:
        log.register(again + 0.2, "web/2", "web")
        log.starts(again + 1, "web/2")
    else:
        far.line(100 if "soon" in case else 600, "activating", background_task="instance_watcher")
    left = case in ("a user starts it", "nobody does")
    imported, scenario = import_(tmp_path, log, *([] if case == "no Nexus log" else [far]))
    assert scenario.load[0].create.auto_restart == ("never" if left else None)
    assert ("failed, and Nexus did not start it again" in imported.text) is left
    assert [load.action() for load in scenario.load[1:]] == ["start"] * (case == "a user starts it")
    assert (imported.differences, imported.failed) == ((), ())


def test_a_name_that_is_used_again_means_the_instance_that_was_there(tmp_path):
    """It was stopped and deleted, and another one was made by its name."""
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    far.user(40, "web", "stop", key="shop")
    log.stops(40.1, "web")
    more = {"component": "dropshot_external", "latency_us": 9000}
    far.line(60, "request completed", uri="/v1/instances/web", method="DELETE", response_code=204, **more)
    log.register(80, "other", hostname="web")
    log.starts(81, "other")
    far.user(120, "web", "reboot", key="web")
    log.request(120.1, "other", "put")
    log.observes(120.2, "other", "Rebooting", gen=4)
    log.observes(123, "other", "Running", gen=5)
    imported, scenario = import_(tmp_path, log, far)
    asked = [(load.action(), getattr(load, load.action()).hostname) for load in scenario.load]
    first, second = "web", "web-1"
    assert [verb for verb, _ in asked] == ["create", "stop", "delete", "create", "reboot"]
    assert [name if isinstance(name, str) else name[0] for _, name in asked] == [first] * 3 + [second] * 2
    assert (imported.differences, imported.failed) == ((), ())


def test_a_target_that_was_taken_back_is_stuck_in_nothing(tmp_path):
    source, target = Log("BRM1"), Log("BRM2")
    source.register(0, "db/1", "db")
    source.starts(1, "db/1")
    target.register(60, "db/2", "db", migration=uid("m"))
    target.line(60.2, f"Configuring new Omicron zone: oxz_propolis-server_{uid('vmm db/2')}", **target.ids("db/2"))
    target.request(61, "db/2", "put", 500)
    target.request(61.2, "db/2", "unregister")
    source.request(300, "db/1", "get", latency=2)
    _, scenario = import_(tmp_path, source, target)
    assert not [rule for rule in scenario.rules if "stuck" in rule.name]


def test_a_stop_that_lasted_as_long_as_a_grace_is_ended_by_force_in_the_replay_too(tmp_path):
    far = nexus()
    starts_saga(far, 1, "web")
    far.received(9, "web", "Running", 3)
    far.user(60, "web", "stop")
    far.received(60.2, "web", "Stopping", 5)
    far.received(665, "web", "Destroyed", 7)
    imported, _ = import_(tmp_path, far)
    assert "as long as an agent's grace" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_a_sled_loses_its_power_when_what_ran_on_it_runs(tmp_path):
    """One latency stands for all: the start on it may take as long as the slowest."""
    log, other, far = Log("BRM1"), Log("BRM2"), nexus()
    other.register(1, "slow")
    other.starts(2, "slow", took=25)
    log.register(40, "web")
    log.starts(41, "web", took=4)
    watched(far, 90, "web", "sled-agent is unreachable", error="timed out")
    not_on = "instance is assigned to a VMM on a sled that is not in A0, marking it as Failed"
    watched(far, 120, "web", not_on, sled_power_state="A2")
    other.register(121, "web/2", "web")
    other.starts(122, "web/2", took=5)
    imported, scenario = import_(tmp_path, log, other, far)
    rule, _ = only(scenario, PowerOffSled)
    assert rule.when.at > 65 * S, "its log ends at 45 s"
    assert "may start more slowly here" in imported.text
    assert (imported.differences, imported.failed) == ((), ())
