"""What the words of a scenario do, each in the smallest closed world that shows it (scenarios.md 7, semantics)."""

import json

import pytest
from attrs import evolve
from support.rows import in_one_test

from sim_sled.engine.engine import Engine
from sim_sled.language.check import parse_scenario
from sim_sled.play.export import mermaid, trace_events
from sim_sled.play.run import How, play, run_to_end
from sim_sled.play.virtual import Bounds, World

HEAD = "version: 1\nname: x\n"
ONE = "load: [{at: 0s, create: {hostname: web-1}}]\n"
STOPPED = "load: [{at: 0s, create: {hostname: web-1}}, {at: 10s, stop: {}}]\n"


def run(text, seed=1, **how):
    scenario, problems = parse_scenario(HEAD + text)
    assert scenario is not None, problems.text()
    return play(scenario, seed, How(**how))


def lines(result, kind, has=""):
    return [line for line in result.lines if line.kind == kind and has in line.text]


def rules(*bodies):
    return "rules:\n" + "".join(f"- {body}\n" for body in bodies)


def booted_at(result, vmm="v1"):
    [line] = [line for line in lines(result, "propolis", "-> running") if line.vmm == vmm]
    return line.at_us


def test_delays_of_several_rules_add_up():
    slow = "{name: %s, when: {edge: starting -> running}, do: {delay: %s}}"
    plain = booted_at(run(ONE))
    assert booted_at(run(rules(slow % ("a", "2s"), slow % ("b", "3s")) + ONE)) == plain + 5_000_000


def test_the_first_terminal_action_ends_the_request():
    result = run(
        rules(
            "{name: a, when: {request: vmm_register}, do: {fail: {status: 503}}}",
            "{name: b, when: {request: vmm_register}, do: {fail: {status: 404, code: NO_SUCH_INSTANCE}}}",
        )
        + ONE
    )
    assert [line.text for line in lines(result, "request", "vmm_register")] == ["vmm_register: 503"]
    assert [line.text.split()[0] for line in lines(result, "rule")] == ["a"]


def test_rules_that_do_not_end_the_request_all_apply_in_file_order():
    result = run(
        rules(
            "{name: b, when: {state: running}, do: {note: one}}",
            "{name: a, when: {state: running}, do: {note: two}}",
        )
        + ONE
    )
    assert [line.text for line in lines(result, "note")] == ["one", "two"]


def test_a_rule_that_fires_is_told_with_its_file_and_line(tmp_path):
    from sim_sled.language.check import load_scenarios

    path = tmp_path / "x.yaml"
    path.write_text(HEAD + rules("{name: a, when: {state: running}, do: {note: hi}}") + ONE)
    [loaded], _ = load_scenarios([str(path)])
    result = play(loaded.scenario, 1)
    assert [line.text for line in lines(result, "rule")] == ["a (x.yaml:4): note"]


@in_one_test(
    ("condition", "fired"),
    [
        pytest.param("", 4, id="without condition every time"),
        pytest.param(", skip: 1", 3, id="skip leaves the first out"),
        pytest.param(", times: 2", 2, id="times ends it"),
        pytest.param(", skip: 1, times: 2", 2, id="skip then times"),
        pytest.param(", chance: 0%", 0, id="no chance"),
        pytest.param(", enabled: false", 0, id="switched off"),
        pytest.param(", between: 3s..8s", 1, id="only within an interval"),
        pytest.param(", for: {hostname: 'db-*'}", 1, id="only for those it means"),
        pytest.param(", for: {not: {hostname: 'db-*'}}", 3, id="not for those it does not mean"),
        pytest.param(", for: {any: [{hostname: web-1}, {ncpus: 8..}]}", 2, id="any of several"),
        pytest.param(", for: {nth_vmm: [1, 3..4]}", 3, id="by ordinal"),
        pytest.param(", for: {memory: 5GiB..}", 1, id="by memory"),
        pytest.param(", for: {project: blue}", 1, id="by the name of the project"),
        pytest.param(", for: {sled: sled-2}", 1, id="by sled"),
        pytest.param(", for: {vmm: v2}", 1, id="by short name"),
        pytest.param(", for: {state: running}", 4, id="by state"),
        pytest.param(", for: {role: source}", 0, id="by role"),
        pytest.param(", for: {percent: 100%}", 4, id="all of them"),
        pytest.param(", for: {percent: 0%}", 0, id="none of them"),
    ],
)
def test_conditions_and_selectors(condition, fired):
    load = """load:
- {at: 0s, create: {hostname: "web-{n}", count: 2, project: blue, spread: 0s}}
- {at: 4s, create: {hostname: db-1, ncpus: 8, memory: 8GiB}}
- {at: 20s, create: {hostname: app-1}}
"""
    load = load.replace(", project: blue", "").replace("hostname: app-1", "hostname: app-1, project: blue")
    result = run(rules(f"{{name: a, when: {{state: running}}, do: {{note: hi}}{condition}}}") + load)
    assert len(lines(result, "note")) == fired


@in_one_test(
    ("action", "told"),
    [
        pytest.param("fail: {status: 500, code: Internal}", "vmm_put_state running: 500 Internal", id="fail"),
        pytest.param("reset: true", "vmm_put_state running: connection refused", id="reset"),
        pytest.param("hang: 5s", "vmm_put_state running: connection closed", id="hang for a while"),
        pytest.param("hang: forever", "vmm_put_state running: no answer within 60 s", id="hang for ever"),
        pytest.param("delay: 70s", "vmm_put_state running: no answer within 60 s", id="later than the time-out"),
    ],
)
def test_what_a_request_can_meet(action, told):
    result = run(
        rules(f"{{name: a, when: {{request: vmm_put_state, to: running}}, times: 1, do: {{{action}}}}}") + ONE
    )
    assert told in [line.text for line in lines(result, "request")]
    assert lines(result, "request", "vmm_unregister")  # the start is taken back


def test_a_set_state_on_an_edge_goes_elsewhere():
    result = run(rules("{name: a, when: {edge: starting -> running}, times: 1, do: {set_state: failed}}") + ONE)
    assert lines(result, "propolis", "starting -> failed")


def test_an_illegal_state_is_told_as_it_is():
    result = run(
        rules("{name: a, when: {state: running}, do: [{delay: 3s}, {set_state: rebooting, illegal: true}]}") + ONE,
        until_us=8_000_000,
    )
    assert lines(result, "sent", "rebooting")


def test_a_skipped_state_takes_no_time():
    plain, skipping = (
        run(STOPPED),
        run(rules("{name: a, when: {state: running}, do: {skip_states: [stopping]}}") + STOPPED),
    )
    assert lines(plain, "propolis", "running -> stopping")
    assert not lines(skipping, "propolis", "-> stopping")
    assert lines(skipping, "propolis", "-> stopped")


def test_a_stall_that_ends_delays():
    result = run(rules("{name: a, when: {state: stopping}, do: {stall: 20s}}") + STOPPED)
    [stopped] = lines(result, "propolis", "stopping -> stopped")
    assert stopped.at_us > 31_000_000


def test_a_hold_ends_by_time_by_name_or_by_release():
    held = "{name: keeps, when: {publish: running}, do: {hold: %s}}"
    by_time = run(rules(held % "{lasts: 7s}") + ONE)
    by_name = run(rules(held % "{until: go}", "{name: b, when: {at: 9s}, do: {fire: go}}",
                        "{name: c, when: {manual: go}, do: {note: go}}") + ONE)  # fmt: skip
    by_release = run(rules(held % "{lasts: forever}", "{name: b, when: {at: 11s}, do: {release: keeps}}") + ONE)
    at = [lines(r, "public", "running")[0].at_us // 1_000_000 for r in (by_time, by_name, by_release)]
    assert at == [8, 9, 11]


def test_a_report_dropped_for_good_is_found_by_the_health_check():
    result = run(rules("{name: a, when: {publish: running}, do: {drop: {retry: false}}}") + ONE)
    assert lines(result, "public", "running")[0].at_us >= 30_000_000


def test_a_report_dropped_on_its_way_is_repeated():
    result = run(rules("{name: a, when: {publish: running}, times: 1, do: {drop: {}}}") + ONE)
    assert lines(result, "public", "running")[0].at_us < 3_000_000
    assert lines(result, "sent", "attempt 2")


def test_doorbell_tells_nexus_nothing_until_it_asks():
    result = run("agent: {reporting: doorbell}\n" + ONE)
    assert lines(result, "public", "running")[0].at_us >= 30_000_000
    assert result.good


def test_the_agents_queue_is_bounded():
    reboots = "".join(f", {{at: {at}s, reboot: {{}}}}" for at in (10, 11, 12))
    load = f"load: [{{at: 0s, create: {{hostname: web-1}}}}{reboots}]\n"
    slow = "{name: a, when: {request: vmm_put_state}, between: 5s..1m, do: {delay: 20s}}"
    result = run("agent: {queue: 2}\n" + rules(slow) + load)
    [full] = lines(result, "request", "reboot: 503 INSTANCE_CHANNEL_FULL")
    assert full.at_us // 1_000_000 == 12


def test_a_partition_lets_nothing_pass_and_ends():
    cut = "{name: a, for: {sled: sled-1}, when: {at: 5s}, do: {partition: {from: nexus, direction: %s, lasts: 60s}}}"
    both = run(rules(cut % "both") + STOPPED)
    assert lines(both, "user", "stop web-1")[0].text.startswith("stop web-1: 50")
    assert not lines(both, "propolis", "stopping")
    out = run(rules(cut % "out") + STOPPED)
    assert lines(out, "propolis", "running -> stopping")
    assert lines(out, "public", "stopped")[-1].at_us > 65_000_000


@in_one_test("trick", ["duplicate: {copies: 3, gap: 1s}", "reorder: {window: 2}", "stale: {back: 1}"])
@in_one_test("way", ["partition: {from: nexus, direction: out, lasts: 60s}", "nexus_replies: {lasts: 60s}"])
def test_what_is_sent_beside_a_report_goes_the_same_way(way, trick):
    """Copies passed a cut network once, and Nexus knew what nobody could have told it (`nexus-outage`, seed 15)."""
    way = way.replace("replies: {", "replies: {status: 503, ")
    beside = f"{{name: b, when: {{publish: stopping}}, do: {{{trick}}}}}"
    result = run(rules(f"{{name: a, when: {{at: 5s}}, do: {{{way}}}}}", beside) + STOPPED)
    meanwhile = [line for line in result.lines if 5_000_000 < line.at_us < 65_000_000]
    assert "running -> stopping" in [line.text for line in meanwhile if line.kind == "propolis"]
    assert not [line for line in meanwhile if line.kind == "acked"]
    assert not [line for line in meanwhile if line.text.endswith(("duplicated", "repeated", "falls behind"))]
    if way.startswith("partition"):  # a Nexus that only answers badly still asks its sleds
        assert not [line for line in meanwhile if line.kind == "public"]
        assert lines(result, "public", "stopped")[-1].at_us > 65_000_000


def test_sleds_that_are_cut_off_from_each_other_cannot_migrate():
    text = rules("{name: a, when: {at: 5s}, do: {partition: {from: sled-2}}}") + (
        "fleet: {sleds: 2}\nload: [{at: 0s, create: {hostname: web-1}}, {at: 10s, migrate: {}}]\n"
    )
    result = run(text)
    assert lines(result, "propolis", "migrating -> failed")
    assert lines(result, "public")[-1].text == "running"


@pytest.mark.parametrize(
    ("fate", "source", "target"),
    [
        pytest.param("{result: failed, source: resumes, target: failed}", "running", "failed", id="fails, goes on"),
        pytest.param("{result: failed, source: dies}", "failed", "failed", id="fails, and the source dies"),
        pytest.param("failed", "running", "failed", id="fails in short"),
    ],
)
def test_the_fate_of_a_migration(fate, source, target):
    text = rules(f"{{name: a, for: {{role: source}}, when: {{migration: ram_push}}, do: {{migration: {fate}}}}}")
    result = run(text + "load: [{at: 0s, create: {hostname: web-1}}, {at: 10s, migrate: {}}]\n", until_us=20_000_000)
    last = {line.vmm: line.text for line in lines(result, "propolis")} | {
        line.vmm: line.text for line in lines(result, "sent") if " failed" in f" {line.text}"
    }
    assert source in last["v1"]
    assert target in last["v2"]
    assert not [warned for warned in result.warnings if warned.code == "W313"], "it had its effect"


def test_a_rule_sets_off_another_with_the_same_vmm():
    result = run(
        rules(
            "{name: a, when: {state: running}, do: {note: first}}",
            "{name: b, when: {rule: a}, do: [{delay: 2s}, {note: second}]}",
        )
        + ONE
    )
    first, second = lines(result, "note")
    assert (first.vmm, second.vmm) == ("v1", "v1")
    assert second.at_us - first.at_us == 2_000_000


def test_timed_rules_fire_when_they_say():
    result = run(
        rules(
            "{name: a, when: {at: 7s}, do: {note: at}}",
            "{name: b, when: {every: 10s, from: 5s, to: 30s}, do: {note: every}}",
            "{name: c, for: {hostname: web-1}, when: {at: 9s}, do: {note: mine}}",
        )
        + ONE
    )
    told = [(line.text, line.at_us // 1_000_000) for line in lines(result, "note")]
    assert told == [("every", 5), ("at", 7), ("mine", 9), ("every", 15), ("every", 25)]


def test_a_snapshot_tells_the_state_of_everything():
    result = run(rules("{name: a, when: {at: 7s}, do: {snapshot: now}}") + ONE)
    assert [line.text for line in lines(result, "snapshot")] == ["now: 1 VMMs, 0 reports held; v1=running"]


def test_a_user_action_that_is_refused_is_an_event_and_no_failure():
    result = run("load: [{at: 0s, create: {hostname: web-1}}, {at: 10s, delete: {}}]\n")
    assert result.good
    assert "400 cannot delete instance: instance is running" in lines(result, "user", "delete")[0].text


def test_a_failed_expectation_tells_why():
    result = run(
        rules("{name: stuck, when: {state: starting}, do: {stall: forever}}")
        + ONE
        + "expect: [{name: boots, after: {state: starting}, within: 20s, that: {vmm: running}}]\n"
    )
    [failure] = result.failures
    assert failure.key == "expect/boots"
    assert "vmm is starting, not running" in failure.text
    assert any("for ever" in line for line in failure.why)
    assert any("rule stuck (-:4) stalls it" in line for line in failure.why)


def test_what_must_never_happen_is_noticed_at_once():
    result = run(ONE + "expect: [{after: {state: starting}, lasts: 20s, never: {state: running, same: vmm}}]\n")
    [failure] = result.failures
    assert failure.at_us < 3_000_000
    assert "state running happened" in failure.text


def test_a_reload_keeps_the_counters_of_rules_that_keep_their_name():
    def engine_of(text):
        scenario, problems = parse_scenario(HEAD + text)
        assert scenario is not None, problems.text()
        return scenario

    first = engine_of(rules("{name: a, when: {manual: go}, do: {note: x}, times: 2}"))
    told = []
    engine = Engine(first, 1, {}, tell=lambda kind, *_: told.append(kind))
    engine.begin(0)
    engine.fire("go", 0)
    engine.reload(engine_of(rules("{name: a, when: {manual: go}, do: {note: y}, times: 2}",
                                  "{name: b, when: {manual: go}, do: {note: z}}")), 5)  # fmt: skip
    for _ in range(3):
        engine.fire("go", 0)
    assert engine.counters["a"].fired == 2
    assert engine.counters["b"].fired == 3


def test_a_reload_with_one_rule_more_leaves_the_timers_of_the_others_as_they_were():
    """As `inject` does, and a recording with the same rules as other objects; `every` came twice as often."""
    every = "{name: a, when: {every: 10s}, do: {note: x}}"

    def scenario_of(*more):
        scenario, problems = parse_scenario(HEAD + rules(every, *more))
        assert scenario is not None, problems.text()
        return scenario

    def played(scenarios):
        engine = Engine(scenario_of(), 1, {})
        engine.begin(0)
        at_us = []
        engine.tell = lambda *told: at_us.append(now_us)
        for now_us in range(0, 46_000_000, 500_000):
            if now_us in scenarios:
                engine.reload(scenarios[now_us], now_us)
            engine.tick(now_us)
        return sorted({us // 1_000_000 for us in at_us})

    more = scenario_of("{name: b, when: {manual: go}, do: {note: z}}")
    same = evolve(more, rules=(*scenario_of().rules, *more.rules[1:]))
    assert played({}) == [0, 10, 20, 30, 40]
    assert played({15_000_000: more, 22_000_000: same}) == [0, 10, 20, 30, 40]
    other = scenario_of("{name: b, when: {manual: go}, do: {note: z}}")
    gone = evolve(other, rules=other.rules[1:])
    assert played({12_000_000: gone, 14_000_000: more}) == [0, 10, 14, 24, 34, 44], "not one timer more than a rule"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        pytest.param(Bounds(steps_max=20), "more than 20 steps", id="steps"),
        pytest.param(Bounds(until_us=1_000_000), "longer than 1 s", id="time"),
        pytest.param(Bounds(lines_max=10), "too much at once", id="memory"),
    ],
)
def test_a_run_over_a_bound_ends_and_says_how_far_it_came(bounds, said):
    result = run(ONE, bounds=bounds)
    assert [failure.key for failure in result.failures] == ["bounds"]
    assert said in result.failures[0].text


def test_a_run_can_be_looked_at_in_a_timeline_viewer():
    document = json.loads(trace_events(run(STOPPED).lines))
    slices = [e["name"] for e in document["traceEvents"] if e["ph"] == "X"]
    assert slices[:3] == ["starting", "starting", "running"]
    assert all(e["dur"] >= 0 for e in document["traceEvents"] if e["ph"] == "X")
    assert {"process_name", "thread_name"} <= {e["name"] for e in document["traceEvents"]}


def test_a_run_can_be_read_as_a_sequence_diagram():
    text = mermaid(run(STOPPED).lines, "web-1")
    assert text.startswith("sequenceDiagram\n")
    assert "N->>S0: v1 vmm_register: 200" in text
    assert "U->>N: stop web-1: 202" in text


@in_one_test(
    ("first", "second", "armed"),
    [
        ("{at: 5s}", "{at: 5s}", (1, 1)),
        ("{at: 5s}", "{at: 6s}", (1, 1)),
        ("{every: 5s, to: 11s}", "{every: 5s, to: 11s}", (2, 2)),  # at 0s there is no VMM
        ("{every: 5s, to: 11s}", "{every: 5s, from: 1s, to: 5s}", (2, 1)),
        ("{idle: 4s}", "{idle: 4s}", (1, 1)),
    ],
)
def test_expectations_that_wait_for_the_same_moment_are_armed_once_each(first, second, armed):
    text = (
        f"expect:\n- {{name: a, after: {first}, within: 1s, that: {{vmm: running}}}}\n"
        f"- {{name: b, after: {second}, within: 1s, that: {{vmm: running}}}}\n"
    )
    scenario, problems = parse_scenario(HEAD + "latency: {preset: instant}\n" + text + ONE)
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    assert tuple(world.judge.armed_count[label] for label in ("a", "b")) == armed
