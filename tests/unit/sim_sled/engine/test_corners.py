"""Corners of the rule engine that a planted bug once hid in: each test fails with that bug (tests/mutation)."""

import attrs
import pytest
from support.rows import in_one_test

from propolis_stub.types import InstanceState
from propolis_stub.waiting import Edge, Point
from sim_sled.engine import rule_pacer
from sim_sled.engine.cast import SledInfo, Subject
from sim_sled.engine.engine import CHAIN_MAX, Engine
from sim_sled.engine.match import means_sled
from sim_sled.engine.plans import Event, Overrun
from sim_sled.language.check import parse_scenario
from sim_sled.language.distribution import Choice, Fixed, Normal, Uniform
from sim_sled.language.draw import DRAW_MAX
from sim_sled.language.selector import Selector
from sim_sled.language.words import On, Truth
from sim_sled.play.run import How, play, run_to_end
from sim_sled.play.virtual import World

S = 1_000_000
HEAD = "version: 1\nname: x\nfleet: {sleds: 2}\n"
LIFE = "load: [{at: 0s, create: {hostname: web}}, {at: 60s, stop: {}}]\n"


def scenario_of(*rules, rest=""):
    text = HEAD + rest + ("rules:\n" + "".join(f"- {rule}\n" for rule in rules) if rules else "")
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return scenario


def engine_of(*rules):
    """An engine without a world, and what it tells."""
    told = []
    engine = Engine(scenario_of(*rules), 1, {})
    engine.tell = lambda kind, _who, _sled, text, _mark: told.append((kind, text))
    engine.begin(0)
    return engine, told


def tick_until(engine, end_us, told):
    """Lets time pass; each line of `told` gets the second in front in which it was said."""
    while (due := engine.next_deadline_us()) is not None and due <= end_us:
        known = len(told)
        engine.tick(due)
        told[known:] = [(due // S, *line) for line in told[known:]]


def notes(told):
    return [(at, text) for at, kind, text in told if kind == "note"]


def lines(result, kind, has=""):
    return [(line.at_us, line.text) for line in result.lines if line.kind == kind and has in line.text]


def sent_to_nexus(scenario):
    """(time, state, gen) of every report that reaches Nexus, in order."""
    arrived = []

    class Spied(World):
        def _send(self, effect):
            state = effect.body.vmm_state
            arrived.append((self.elapsed_us, state.state.value, state.gen))
            super()._send(effect)

    run_to_end(Spied(scenario, 1), How())
    return arrived


# ---- timers


@pytest.mark.parametrize("when", ["at: 10s", "every: 10s, from: 10s", "idle: 10s"])
def test_timers_of_replaced_rules_are_void(when):
    engine, told = engine_of(f"{{name: a, when: {{{when}}}, do: {{note: old}}}}")
    engine.reload(scenario_of("{name: b, when: {at: 12s}, do: {note: new}}"), 5 * S)
    tick_until(engine, 60 * S, told)
    assert notes(told) == [(12, "new")]


def test_a_silence_is_told_once_and_the_next_one_again():
    engine, told = engine_of("{name: a, when: {idle: 10s}, do: {note: quiet}}")
    tick_until(engine, 35 * S, told)
    assert notes(told) == [(10, "quiet"), (20, "quiet"), (30, "quiet")]


def test_something_that_happens_puts_a_silence_off():
    engine, told = engine_of("{name: a, when: {idle: 10s}, do: {note: quiet}}")
    engine.happened(Event(On.STATE, (Truth.RUNNING,)), None, None, None, 6 * S)
    tick_until(engine, 20 * S, told)
    assert notes(told) == [(16, "quiet")]


# ---- who is meant


@in_one_test(
    "whom",
    [
        "hostname: nobody",
        "any: [{hostname: a}, {hostname: b}]",
        "ncpus: 2..",
        "sled: sled-9",
    ],
)
@in_one_test("when", ["at: 1s", "every: 1s, to: 1s", "idle: 1s", "manual: go", "rule: first"])
def test_a_rule_for_somebody_does_not_fire_for_nobody(whom, when):
    first = "{name: first, when: {at: 1s}, do: {snapshot: s}}"
    engine, told = engine_of(first, f"{{name: a, for: {{{whom}}}, when: {{{when}}}, do: {{note: x}}}}")
    tick_until(engine, 1 * S, told)
    engine.fire("go", 1 * S)
    assert [line for line in told if "note" in line] == []


def test_a_rule_for_a_vmm_does_not_fire_for_a_sled():
    fires = "{name: first, for: {sled: '*'}, when: {at: 1s}, do: {fire: go}}"
    one = "{name: a, for: {hostname: web}, when: {manual: go}, do: {note: x}}"
    any_of = "{name: b, for: {any: [{hostname: web}]}, when: {manual: go}, do: {note: y}}"
    assert lines(play(scenario_of(fires, one, any_of), 1), "note") == []


def test_what_not_says_about_vmms_says_nothing_about_a_sled():
    assert means_sled(Selector(not_=Selector(hostname=("web",))), "sled-1")
    assert not means_sled(Selector(not_=Selector(sled=("sled-1",))), "sled-1")
    assert not means_sled(Selector(not_=Selector(any_=(Selector(sled=("sled-1",)),))), "sled-1")


@in_one_test(
    ("selector", "vmms", "sleds"),
    [
        (Selector(hostname=("a",)), True, False),
        (Selector(sled=("a",)), False, True),
        (Selector(any_=(Selector(sled=("a",)), Selector(hostname=("a",)))), True, True),
        (Selector(any_=(Selector(sled=("a",)),)), False, True),
        (Selector(), False, False),
    ],
)
def test_words_about_vmms_and_sleds_are_found_inside_any(selector, vmms, sleds):
    assert (selector.names_vmms(), selector.names_sleds()) == (vmms, sleds)


@in_one_test(
    ("whom", "down"),
    [
        ("sled: sled-1", ["sled-1"]),
        ("sled: '*', not: {sled: sled-1}", ["sled-2"]),
        ("any: [{sled: sled-1}, {sled: sled-2}]", ["sled-1", "sled-2"]),
        ("any: [{sled: sled-1}]", ["sled-1"]),
    ],
)
def test_a_timed_rule_means_the_sleds_that_its_selector_means(whom, down):
    rule = f"{{name: a, for: {{{whom}}}, when: {{at: 1s}}, do: {{restart_agent: {{down: 1s}}}}}}"
    result = play(scenario_of(rule), 1)
    assert [line.sled for line in result.lines if line.kind == "sled" and "down" in line.text] == down


@pytest.mark.parametrize(
    ("whom", "ends"),
    [("hostname: '*', not: {hostname: web}", ["db"]), ("any: [{hostname: web}, {hostname: x}]", ["web"])],
)
def test_a_timed_rule_means_the_vmms_that_its_selector_means(whom, ends):
    load = "load: [{at: 0s, create: {hostname: web}}, {at: 0s, create: {hostname: db}}]\n"
    rule = f"{{name: a, for: {{{whom}}}, when: {{at: 9s}}, times: 1, do: {{set_state: failed}}}}"
    result = play(scenario_of(rule, rest=load), 1)
    assert [line.hostname for line in result.lines if line.kind == "injected"] == ends


def test_rules_that_set_each_other_off_for_ever_are_stopped():
    scenario = scenario_of(
        "{name: a, when: {at: 1s}, do: {note: x}}",
        "{name: b, when: {rule: a}, do: {note: y}}",
    )
    first, second = scenario.rules
    circle = attrs.evolve(first, when=attrs.evolve(second.when, rule="b"))  # `check` would refuse it
    engine = Engine(attrs.evolve(scenario, rules=(circle, second)), 1, {})
    with pytest.raises(Overrun, match="endless chain"):
        engine.happened(Event(On.RULE, ("a",)), None, None, None, 0)
    assert engine.counters["a"].fired + engine.counters["b"].fired == CHAIN_MAX + 1


def test_a_run_that_multiplies_fails_in_a_sentence(monkeypatch):
    monkeypatch.setattr("sim_sled.engine.timers.TIMERS_MAX", 10)
    many = [f"{{name: r{i}, when: {{at: {i}s}}, do: {{note: x}}}}" for i in range(11)]
    [failure] = play(scenario_of(*many), 1).failures
    assert (failure.key, failure.text) == ("bounds", "more than 10 timers of rules")


# ---- sleds that go down


def test_a_sled_that_goes_down_anew_comes_up_when_the_second_time_is_over():
    result = play(
        scenario_of(
            "{name: a, for: {sled: sled-1}, when: {at: 10s}, do: {restart_agent: {down: 5s}}}",
            "{name: b, for: {sled: sled-1}, when: {at: 12s}, do: {restart_agent: {down: 10s}}}",
        ),
        1,
    )
    assert [at for at, _ in lines(result, "sled", "up")] == [22 * S]


@pytest.mark.parametrize(
    "again", ["restart_agent: {down: 1s}", "reboot_sled: {down: 1s}", "power_off_sled: {lasts: 1s}"]
)
def test_nothing_restarts_without_power(again):
    result = play(
        scenario_of(
            "{name: a, for: {sled: sled-1}, when: {at: 10s}, do: {power_off_sled: {lasts: 60s}}}",
            f"{{name: b, for: {{sled: sled-1}}, when: {{at: 20s}}, do: {{{again}}}}}",
        ),
        1,
    )
    assert [at for at, _ in lines(result, "sled", "up")] == [70 * S]


@pytest.mark.parametrize(("left_us", "fails"), [(1, True), (0, False), (-1, False)])
def test_disks_that_exist_just_now_exist(left_us, fails):
    engine, _ = engine_of()
    sled = SledInfo("sled-1", _uuid(1), no_disks_until_us=5 * S + left_us)
    engine.cast.by_id[sled.id] = engine.cast.sleds[sled.name] = sled
    engine.cast.add(
        lambda n, key: Subject(_uuid(2), n, key, sled, _uuid(3), "web", 2, 2**30, (), ()),
        "web",
    )
    edge = Edge(InstanceState.CREATING, InstanceState.STARTING)
    assert rule_pacer.pace(engine, _uuid(2), Point.CREATE, 0, edge, now_us=5 * S).fail is fails


def _uuid(n):
    from uuid import UUID

    return UUID(int=n)


# ---- requests and reports


@in_one_test(
    ("actions", "told"),
    [
        ("[{fail: 503}, {reset: true}]", "503"),
        ("[{fail: 503}, {fail: 404}]", "503"),
        ("[{reset: true}, {fail: 503}]", "connection refused"),
        ("[{hang: 2s}, {fail: 503}]", "connection closed"),
    ],
)
def test_the_first_action_that_ends_a_request_stands(actions, told):
    rule = f"{{name: a, when: {{request: vmm_register}}, times: 1, do: {actions}}}"
    result = play(scenario_of(rule, rest=LIFE), 1)
    assert any(told in text for _, text in lines(result, "request", "vmm_register"))
    other = "503" if told != "503" else "refused"
    assert not any(other in text or "404" in text for _, text in lines(result, "request", "vmm_register"))


@pytest.mark.parametrize("windows", [(3, 2), (2, 3)])
def test_of_two_windows_the_wider_counts(windows):
    rules = [f"{{name: r{w}, when: {{publish: running}}, do: {{reorder: {{window: {w}}}}}}}" for w in windows]
    arrived = [state for _, state, _ in sent_to_nexus(scenario_of(*rules, rest=LIFE))]
    assert arrived[:4] == ["starting", "stopping", "stopping", "running"]


@pytest.mark.parametrize("window", [2, 3])
def test_a_report_falls_behind_as_many_as_its_window_says(window):
    rule = f"{{name: r, when: {{publish: running}}, do: {{reorder: {{window: {window}}}}}}}"
    arrived = [state for _, state, _ in sent_to_nexus(scenario_of(rule, rest=LIFE))]
    assert arrived.index("running") == window


@pytest.mark.parametrize("held", ["", "{name: held, when: {publish: stopping}, do: {hold: {lasts: 2s}}}"])
def test_a_report_that_did_not_pass_lets_nothing_arrive_behind_it(held):
    """Not at once, nor when it is let go; the late one would be lost at 62 s if none passed it."""
    late = "{name: late, when: {publish: running}, do: {reorder: {window: 2}}}"
    refused = "{name: refused, when: {at: 5s}, do: {nexus_replies: {status: 503, lasts: 25s}}}"
    stopped_early = "load: [{at: 0s, create: {hostname: web}}, {at: 10s, stop: {}}]\n"
    rules = [rule for rule in (late, refused, held) if rule]
    arrived = [(at, state) for at, state, _ in sent_to_nexus(scenario_of(*rules, rest=stopped_early))]
    assert [state for at, state in arrived if at < 30 * S] == ["starting"]
    assert [state for at, state in arrived if at < 60 * S] == ["starting", "destroyed", "running"]


def test_copies_arrive_one_gap_after_the_other():
    rule = "{name: r, when: {publish: running}, do: {duplicate: {copies: 3, gap: 2s}}}"
    at = [at for at, state, _ in sent_to_nexus(scenario_of(rule, rest=LIFE)) if state == "running"]
    assert [each - at[0] for each in at] == [0, 2 * S, 4 * S, 6 * S]


def test_the_hold_that_was_set_first_holds():
    wide = "{name: wide, when: {at: %s}, do: {hold: {publish: running, lasts: 100s}}}"
    own = "{name: own, when: {state: starting}, do: {hold: {publish: running, lasts: 100s}}}"
    slow = "latency: {creating -> starting: 3s, starting -> running: 10s}\n"
    for at, holder in (("1s", "wide"), ("5s", "own")):
        result = play(scenario_of(wide % at, own, rest=slow + LIFE), 1)
        assert [text for _, text in lines(result, "net", "running held")] == [f"running held by {holder}"]


def test_a_hold_that_was_released_by_a_name_holds_nothing_more():
    hold = "{name: h, when: {at: 1s}, do: {hold: {publish: '*', until: go}}}"
    go = "{name: g, when: {at: 30s}, do: {fire: go}}"
    far = "{name: listens, when: {manual: go}, do: {note: gone}}"
    result = play(scenario_of(hold, go, far, rest=LIFE), 1)
    held = [at for at, _ in lines(result, "net", "held by h")]
    assert held
    assert max(held) <= 30 * S
    assert lines(result, "acked", "destroyed")


# ---- distributions


def test_a_normal_that_would_be_negative_is_nothing():
    takes = Normal(1 * S, 1 * S)
    draws = [takes.at(DRAW_MAX // 1_000 * n) for n in range(1, 160)]
    assert set(draws) == {0} | {d for d in draws if d > 0}
    assert draws[:150] == [0] * 150  # 15.9 % lie below zero


def test_which_alternative_and_how_long_are_drawn_apart():
    takes = Choice(((500_000, Uniform(0, 100 * S)), (500_000, Fixed(200 * S))))
    first = [takes.at(DRAW_MAX // 1_000 * n) for n in range(500)]
    assert max(first) > 90 * S
    assert min(first) < 10 * S
    assert sum(each > 50 * S for each in first) in range(200, 300)
