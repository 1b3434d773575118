"""The language: examples load as printed, what is printed is read back, figures mean what they say."""

import json
import os
import re
import time
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test
from support.wire import documents

from nexus_client.types import brief
from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.cli.scenario_texts import check_files, first_sentence, list_text
from sim_sled.language import distribution, draw, figures, load, words
from sim_sled.language.check import load_scenarios, parse_scenario
from sim_sled.language.figures import BadValue
from sim_sled.language.printing import plain, print_scenario, rule_in_words
from sim_sled.language.reference import reference_md, schema_json
from sim_sled.play import library
from sim_sled.strategies.scenario import distributions, scenarios

ROOT = Path(__file__).parents[4]
EXAMPLES = sorted((ROOT / "tests" / "data" / "scenarios").glob("*.yaml"))
LIBRARY = sorted((ROOT / "scenarios").glob("*.yaml"))
S = 1_000_000


@in_one_test("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_of_the_design_loads_as_printed(path):
    text, code = check_files([str(path)])
    *notes, told = text.splitlines()
    assert (told, code) == ("0 errors, 0 warnings", 0)
    assert all(": note: " in line for line in notes)


@in_one_test("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_of_the_design_runs_as_printed(path):
    runs_as_printed(path, until_us=300_000_000 if path.stem == "load" else None)


@pytest.mark.long
def test_half_an_hour_of_load_runs_as_printed():
    runs_as_printed(next(path for path in EXAMPLES if path.stem == "load"))


def runs_as_printed(path, **options):
    outcome = run_files([str(path)], RunOptions(seed=1, **options))
    assert outcome.code == 0, outcome.out
    assert "played" in outcome.err or "internal" not in path.read_text()


def test_there_are_six_examples():
    assert len(EXAMPLES) == 6


@in_one_test("path", [*EXAMPLES, *LIBRARY], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_file_printed_and_read_again_says_the_same(path):
    [loaded], _ = load_scenarios([str(path)])
    assert loaded.scenario is not None
    again, problems = parse_scenario(print_scenario(loaded.scenario))
    assert problems.errors == 0, problems.text()
    assert again == loaded.scenario


@pytest.mark.nightly
@settings(max_examples=by_profile(25, nightly=600), deadline=None)
@given(scenarios())
def test_any_scenario_printed_and_read_again_says_the_same(scenario):
    text = print_scenario(scenario)
    again, problems = parse_scenario(text)
    assert problems.errors == 0, problems.text() + text
    assert again == scenario


@cache
def validator():
    return pytest.importorskip("jsonschema_rs").validator_for(json.loads(schema_json()))


@pytest.mark.nightly
@settings(max_examples=by_profile(12, nightly=300), deadline=None)
@given(scenarios())
def test_editors_accept_what_check_accepts(scenario):
    assert [e.message for e in validator().iter_errors(plain(scenario))] == []


def test_editors_refuse_an_unknown_field():
    assert validator().is_valid({"version": 1})
    assert not validator().is_valid({"version": 1, "ruls": []})
    assert not validator().is_valid({"version": 1, "agent": {"queue": 0}})


def test_the_reference_page_is_current():
    page = ROOT / "docs" / "scenario-reference.md"
    if os.environ.get("SIM_SLED_UPDATE"):
        page.write_text(reference_md())
    assert page.read_text() == reference_md(), "run with SIM_SLED_UPDATE=1"


def test_the_operations_are_those_of_the_openapi_documents():
    def operations(name):
        paths = documents.load(name)["paths"].values()
        return {operation["operationId"] for path in paths for operation in path.values()}

    assert operations("sled-agent/48.0.0") == words.OPERATIONS
    every = set().union(*(operations(name) for name in documents.names() if name.startswith("sled-agent/")))
    assert every == words.ALL_OPERATIONS - words.BESIDE, "and those of the servers beside a sled"


@in_one_test(
    ("text", "us"),
    [
        pytest.param("2s", 2 * S, id="seconds"),
        pytest.param("250ms", 250_000, id="milliseconds"),
        pytest.param("1m30s", 90 * S, id="minutes and seconds"),
        pytest.param("0.5h", 1800 * S, id="a half hour"),
        pytest.param("1d", 86400 * S, id="a day"),
        pytest.param("10us", 10, id="microseconds"),
    ],
)
def test_a_duration_is_read(text, us):
    assert figures.parse_duration(text) == us
    assert figures.parse_duration(figures.show_duration(us)) == us


@in_one_test(
    ("text", "code"),
    [
        pytest.param("5", "E180", id="a number has no unit"),
        pytest.param("s5", "E180", id="the unit stands behind"),
        pytest.param("-5s", "E230", id="time does not go back"),
        pytest.param("999999d", "E180", id="no longer than a century"),
        pytest.param("", "E180", id="nothing"),
        pytest.param("5s..2s", "E181", id="a range the wrong way round"),
        pytest.param("choice(50%=1s)", "E182", id="half a choice"),
        pytest.param("choice(150%=1s)", "E182", id="more than everything"),
        pytest.param("normal(1s)", "E180", id="normal wants two"),
        pytest.param("lognormal(p50=0s p99=1s)", "E180", id="a lognormal median is positive"),
        pytest.param("weibull(1s 2s)", "E180", id="an unknown form"),
    ],
)
def test_what_is_no_distribution_is_refused(text, code):
    with pytest.raises(BadValue) as caught:
        distribution.parse_distribution(text, lambda _name: ())
    assert caught.value.code == code


@given(st.integers(0, figures.DURATION_MAX))
def test_every_duration_is_shown_exactly(us):
    assert figures.parse_duration(figures.show_duration(us)) == us


@given(st.integers(0, 2**63 - 1))
def test_every_size_is_shown_exactly(size):
    assert figures.parse_size(figures.show_size(size)) == size


@given(st.integers(0, 1_000_000))
def test_every_share_is_shown_exactly(share):
    assert figures.parse_percent(figures.show_percent(share)) == share


@pytest.mark.nightly
@settings(max_examples=by_profile(80, nightly=2000), deadline=None)
@given(distributions, st.integers(0, draw.DRAW_MAX - 1))
def test_a_drawn_time_is_a_whole_number_from_now_on(dist, u):
    us = dist.at(u)
    assert isinstance(us, int)
    assert 0 <= us <= 50 * figures.DURATION_MAX


@in_one_test(
    ("text", "p50", "p99"),
    [
        pytest.param("lognormal(p50=4s p99=20s)", 4 * S, 20 * S, id="lognormal"),
        pytest.param("normal(6s 1s)", 6 * S, int(8.326 * S), id="normal"),
        pytest.param("1s..3s", 2 * S, int(2.98 * S), id="uniform"),
        pytest.param("exp(1s)", int(0.693 * S), int(4.605 * S), id="exponential"),
    ],
)
def test_draws_have_the_median_and_the_tail_that_was_written(text, p50, p99):
    dist = distribution.parse_distribution(text, lambda _name: ())
    drawn = sorted(dist.at(draw.draw(7, "test", i)) for i in range(4000))
    assert drawn[2000] == pytest.approx(p50, rel=0.06)
    assert drawn[3960] == pytest.approx(p99, rel=0.12)
    assert dist.at(int(0.5 * draw.DRAW_MAX)) == pytest.approx(p50, rel=0.001)
    assert dist.at(int(0.99 * draw.DRAW_MAX)) == pytest.approx(p99, rel=0.001)


def test_a_choice_keeps_its_shares():
    dist = distribution.parse_distribution("choice(90%=1s 10%=30s)", lambda _name: ())
    drawn = [dist.at(draw.draw(1, "x", i)) for i in range(5000)]
    assert set(drawn) == {S, 30 * S}
    assert drawn.count(30 * S) == pytest.approx(500, rel=0.2)


def test_times_come_from_a_file_beside_the_scenario(tmp_path):
    (tmp_path / "boot.csv").write_text("took,host\n3s,a\n4s,b\n")
    (tmp_path / "x.yaml").write_text("version: 1\nlatency: {starting -> running: file(boot.csv)}\n")
    [loaded], problems = load_scenarios([str(tmp_path / "x.yaml")])
    assert problems.errors == 0, problems.text()
    takes = loaded.scenario.latency.find("edge", "starting -> running")
    assert {takes.at(draw.draw(1, "x", i)) for i in range(50)} == {3 * S, 4 * S}


def test_a_draw_depends_on_each_part_of_its_key():
    base = draw.draw(1, "rule", "v1", 0)
    assert base == draw.draw(1, "rule", "v1", 0)
    assert len({base, draw.draw(2, "rule", "v1", 0), draw.draw(1, "r", "v1", 0), draw.draw(1, "rule", "v1", 1)}) == 4


def test_includes_are_merged_below_and_variables_replaced(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "vars: {boot: 9s, who: db}\nfleet: {sleds: 7}\n"
        "rules: [{name: first, for: {hostname: '${who}-*'}, when: {state: running}, do: {note: hi}}]\n"
    )
    (tmp_path / "top.yaml").write_text(
        "version: 1\ninclude: base.yaml\nvars: {boot: 2s}\nfleet: {name: 'x{n}'}\n"
        "latency: {starting -> running: '${boot}'}\n"
        "rules: [{name: second, when: {state: running}, do: {note: hi}}]\n"
    )
    [loaded], problems = load_scenarios([str(tmp_path / "top.yaml")])
    s = loaded.scenario
    assert problems.errors == 0, problems.text()
    assert (s.name, s.fleet.sleds, s.fleet.name) == ("top", 7, "x{n}")
    assert [r.name for r in s.rules] == ["first", "second"]
    assert s.rules[0].for_.hostname == ("db-*",)
    assert s.rules[0].mark().file.endswith("base.yaml")
    assert s.latency.find("edge", "starting -> running") == distribution.Fixed(2 * S)


HOSTILE = {
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a]\n" for i in range(30)),
    "ten thousand brackets": "version: 1\nrules: " + "[" * 10_000,
    "ten thousand braces": "version: 1\nrules: " + "{a: " * 10_000,
    "deep indentation": "".join(" " * i + "a:\n" for i in range(1000)),
    "a tag that calls": "version: 1\nname: !!python/object/apply:os.system ['touch owned']\n",
    "a tag that makes": "version: 1\nseed: !!python/name:os.system\n",
    "a merge key": "version: 1\n<<: {seed: 1}\n",
    "a million values": "version: 1\nrules: [" + "a," * 1_000_000 + "]",
    "ten thousand unknown keys": "version: 1\n" + "".join(f"k{i}: 1\n" for i in range(10_000)),
    "a variable that multiplies": "version: 1\nvars: {a: '" + "x" * 5000 + "'}\nname: '" + "${a}" * 100_000 + "'\n",
    "a NUL": "version: 1\nname: a\0b\n",
    "a binary": bytes(range(256)).decode("latin1"),
    "two documents": "version: 1\n---\nversion: 1\n",
    "a scalar": "hello\n",
    "nothing": "",
    "a complex key": "version: 1\n? [a, b]\n: c\n",
    "a long line": "version: 1\nname: " + "x" * 1_000_000 + "\n",
    "a date": "version: 1\nseed: 2026-01-01\n",
    "a huge number": "version: 1\nseed: " + "9" * 5000 + "\n",
    "a huge duration": "version: 1\nlatency: {starting -> running: " + "9" * 5000 + "s}\n",
}


@in_one_test("what", HOSTILE)
def test_a_hostile_file_is_refused_quickly_and_never_executed(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # a tenth of it: the whole is "about a second to read", and linear
    monkeypatch.setattr(load, "_Budget", partial(load._Budget, nodes=load.NODES_MAX // 10))
    (tmp_path / "x.yaml").write_text(HOSTILE[what])
    started = time.process_time()
    text, code = check_files(["x.yaml"])
    assert time.process_time() - started < 10  # a bound against explosion, not a measure of speed
    assert code == 2
    assert re.match(r"x\.yaml(:\d+:\d+)?: E\d{3} ", text)
    assert len(text) < 1_000_000
    assert not (tmp_path / "owned").exists()


def test_ten_megabytes_are_refused_unread(tmp_path):
    (tmp_path / "x.yaml").write_text("version: 1\n" + "# padding\n" * 1_048_576)
    text, code = check_files([str(tmp_path / "x.yaml")])
    assert code == 2
    assert "E109 more than 4 MiB" in text


def test_a_file_that_is_not_there_is_told():
    text, code = check_files(["no-such.yaml"])
    assert code == 2
    assert "no-such.yaml: E120 cannot be read: No such file or directory" in text


@given(st.text(max_size=200))
def test_no_text_ends_the_checker(text):
    _, problems = parse_scenario(text)
    assert problems.text().endswith(("warnings\n", "warning\n"))


WORDS = ["running", "5s", "*", "vmm_register", "50%", "a..b", "1s..2s"]
KEYS = [
    "name",
    "for",
    "when",
    "do",
    "state",
    "at",
    "request",
    "fail",
    "delay",
    "hold",
    "publish",
    "after",
    "that",
    "never",
    "always",
    "create",
    "every",
    "to",
    "from",
]
shapes = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(WORDS)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


@given(shapes)
def test_no_shape_of_values_ends_the_checker(value):
    import yaml

    text = yaml.safe_dump(
        {"version": 1, "rules": value, "expect": value, "load": value, "fleet": value, "latency": value}
    )
    _, problems = parse_scenario(text)
    assert problems.errors


def test_the_library_can_be_listed():
    listed = library.listed()
    assert [one.name for one in listed] == sorted(p.stem for p in LIBRARY)
    assert json.loads(list_text(as_json=True))[0]["name"] == listed[0].name
    on_a_terminal, whole = list_text(width=80), list_text(width=80, long=True)
    assert all(len(line) <= 80 for line in whole.splitlines() + on_a_terminal.splitlines())
    assert len(on_a_terminal.splitlines()) <= 2.5 * len(listed), "a list is skimmed"
    assert all(one.about.split()[-1] in whole for one in listed)


@in_one_test(
    ("about", "said"),
    [
        ("It hangs (omicron#1: 5 min. or so). Then it goes on.", "It hangs (omicron#1: 5 min. or so)."),
        ("A property of Nexus: its accounts are true. More.", "A property of Nexus: its accounts are true."),
        ("Memory is prepared while the VM starts, and that takes minutes: 115 s were seen.",
         "Memory is prepared while the VM starts, and that takes minutes."),
        ("It takes 1.5 s at v1.2", "It takes 1.5 s at v1.2"),
    ],
)  # fmt: skip
def test_of_a_scenario_that_is_listed_the_first_sentence_is_said(about, said):
    assert first_sentence(about) == said


@in_one_test(
    ("us", "said"),
    [
        (0, "0us"), (999, "999us"), (1_000, "1ms"), (43_450, "43.5ms"), (999_499, "999ms"), (999_500, "1s"),
        (30_000_000, "30s"),
        (33_616_552, "33.6s"), (59_949_999, "59.9s"), (59_950_000, "1m"), (90_000_000, "1m30s"),
        (595_870_000, "9m56s"),
        (3_599_400_000, "59m59s"), (3_599_500_000, "1h"), (7_500_000_000, "2h5m"), (86_399_999_999, "1d"),
        (90_000_000_000, "1d1h"), (8_640_000_000_000, "100d"),
    ],
)  # fmt: skip
def test_a_duration_for_people_is_rounded_and_short(us, said):
    assert brief(us) == said


@given(st.integers(0, 10**15))
def test_a_duration_for_people_is_near_to_what_it_is_and_is_read_back(us):
    assert abs(figures.parse_duration(brief(us)) - us) <= us / 40  # half an hour of a day and a bit
    assert len(brief(us)) <= 9


@in_one_test(
    ("named", "said"),
    [
        ("drop", "an action is a mapping, e.g. {drop: {retry: true}}"),
        ("power_off_sled", "an action is a mapping, e.g. {power_off_sled: {lasts: 150ms}}"),
        ("nonsense", "an action is a mapping, e.g. {delay: 3s}"),
        ("[[drop]]", "an action is a mapping, e.g. {delay: 3s}"),
    ],
)
def test_an_action_that_is_only_named_is_told_how_it_is_written(named, said):
    _, problems = parse_scenario(f"version: 1\nrules: [{{name: x, when: {{publish: running}}, do: {named}}}]\n")
    assert said in problems.text()


@in_one_test(
    ("when", "said"),
    [
        ("manual", "not one value; write when: {manual: ...}"),
        ("{thing: x}", "unknown trigger 'thing'; known: request, response, state, "),
    ],
)
def test_whoever_writes_no_trigger_is_told_how_or_which_there_are(when, said):
    _, problems = parse_scenario(f"version: 1\nrules: [{{name: x, when: {when}, do: {{note: hi}}}}]\n")
    assert said in problems.text()


@in_one_test(
    ("written", "said"),
    [
        ("{stall: forever}", "stall: forever"),
        ("{stall: 3s}", "stall: 3s"),
        ("[{delay: 1s}, {kill_propolis: {}}]", "delay: 1s, kill_propolis: true"),
        ("{kill_propolis: {restart: true}}", "kill_propolis: {restart: true}"),
    ],
)
def test_a_rule_is_told_in_the_words_of_its_file(written, said):
    """On the page: `stall: true` is what nobody writes."""
    scenario, problems = parse_scenario(
        f"version: 1\nrules: [{{name: r, for: {{hostname: web}}, when: {{state: stopping}}, do: {written}}}]\n"
    )
    assert scenario is not None, problems.text()
    assert rule_in_words(scenario.rules[0]) == {"for": "hostname: web", "when": "state: stopping", "do": said}
