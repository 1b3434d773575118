"""A swarm: one number is a whole scenario, valid and always the same; guidance changes parts of it."""

from itertools import islice
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test
from support.scenarios.kept import of_library

from sim_sled.campaign.ambush import MOMENT_US, ambush, unlucky, watchful
from sim_sled.campaign.draws import PARTS, Draws, byte_of, with_byte
from sim_sled.campaign.explore import explore
from sim_sled.campaign.guide import EARLY, ROUNDS, Guided, Swarm, fresh
from sim_sled.campaign.job import Job, Ran, play_seed, scenario_of
from sim_sled.campaign.places import Processes
from sim_sled.campaign.sheet import Sheet, head_of
from sim_sled.campaign.swarm import catalogue, families, placed, scaled, swarmed
from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.language.check import parse_scenario, sleds_of
from sim_sled.language.distribution import parse_distribution
from sim_sled.language.latency import Latency
from sim_sled.language.printing import print_scenario
from sim_sled.language.selector import Selector
from sim_sled.play import library
from sim_sled.play.run import How, play

seeds = st.integers(0, 2**64 - 1)
SECOND = ROUNDS[0] + ROUNDS[1]


def job(name="happy", **words):
    return Job(name, of_library(name), How(**words), swarm=True, covers=True)


@pytest.mark.nightly
@settings(max_examples=by_profile(20, nightly=400))
@given(st.sampled_from(library.names()), seeds)
def test_what_a_seed_draws_is_a_valid_scenario_with_all_that_was_added(name, seed):
    drawn = swarmed(of_library(name), seed)
    printed = print_scenario(drawn)
    read, problems = parse_scenario(printed)
    assert read is not None, problems.text()
    assert read == drawn
    assert len(drawn.rules) >= len(of_library(name).rules)


@pytest.mark.nightly
def test_every_fault_of_the_catalogue_fits_into_every_scenario_of_the_library():
    # else `swarmed` would leave out what does not fit, and nobody would see it
    every = {name: of_library(name) for name in library.names()}
    one_of_each_fleet = {str(one.fleet): name for name, one in every.items()}.values()
    for name in by_profile(one_of_each_fleet, nightly=every):
        sleds = [sled.name for sled in sleds_of(every[name].fleet)]
        added = tuple(placed(rule, n, sleds, Draws("places", n)) for n, rule in enumerate(catalogue()))
        scenario = attrs.evolve(every[name], rules=(*every[name].rules, *added))
        _, problems = parse_scenario(print_scenario(scenario))
        assert problems.errors == 0, f"{name}: {problems.text()}"


@in_one_test("byte", range(0, 256, 5))
def test_every_ambush_and_every_watchful_user_fits_into_a_scenario_of_others(byte):
    rules, load = ambush(Draws("shares", byte), Draws("places", 255 - byte), 120_000_000)
    rules.append(unlucky(Draws("places", byte)))
    load += [watchful(Draws("load", byte), n, 120_000_000) for n in range(3)]
    happy = of_library("happy")
    scenario = attrs.evolve(happy, rules=tuple(rules), load=(*happy.load, *load))
    read, problems = parse_scenario(print_scenario(scenario))
    assert read is not None, problems.text()


def test_ambushes_meet_in_windows_that_faults_at_times_of_their_own_miss():
    """A Nexus that dies of a lost target needs late reports, a lost sled and a migration, all within two seconds."""
    ground = library.load([str(Path(__file__).parents[3] / "campaign" / "few.yaml")])[0][0].scenario
    hunt = Job("few", ground, How(), swarm=True, hazard="panic_without_target")
    found = [fresh(77, n) for n in (100, 173, 285)]
    keys = [key for seed in found for key, _ in play_seed(hunt, seed).failures]
    assert "nexus_lives" in keys


def test_every_family_fits_into_a_scenario_of_others():
    for family in families():
        load = (*of_library("happy").load, *family.load)
        scenario = attrs.evolve(
            of_library("happy"), rules=family.rules, load=load, latency=family.latency or Latency()
        )
        _, problems = parse_scenario(print_scenario(scenario))
        # a timer that means sleds gets one of them only when it is placed
        errors = {problem.code for problem in problems.found if problem.code.startswith("E")}
        assert errors <= {"E243"}, problems.text()


def test_the_catalogue_has_the_faults_of_the_library_without_the_names_they_mean_there():
    assert len(catalogue()) > 40
    assert not any(rule.for_.names_sleds() or rule.for_.hostname for rule in catalogue())


@given(seeds, st.sampled_from(PARTS), st.integers(0, 255))
def test_one_part_of_a_seed_can_be_changed_and_the_others_stay(seed, part, byte):
    other = with_byte(seed, part, byte)
    assert 0 <= other < 2**64
    assert [byte_of(other, one) for one in PARTS] == [byte if one == part else byte_of(seed, one) for one in PARTS]


@in_one_test("part", [part for part in PARTS if part != "chance"])
def test_every_part_decides_something(part):
    crowd = of_library("nexus-outage")
    # faults and places need each other; so both are looked at with faults that are there
    base = with_byte(0, "faults", 3)
    drawn = (print_scenario(swarmed(crowd, with_byte(base, part, byte))) for byte in range(16))
    first = next(drawn)
    assert any(other != first for other in drawn)


def test_the_chance_of_a_run_decides_nothing_of_what_is_played():
    crowd = of_library("nexus-outage")
    assert len({print_scenario(swarmed(crowd, with_byte(0, "chance", byte))) for byte in range(16)}) == 1


def test_one_number_is_the_whole_run(tmp_path):
    seed = fresh(1, 0)
    trace = tmp_path / "one.trace"
    path = str(library.folder() / "happy.yaml")
    run_files([path], RunOptions(seed=seed, swarm=True, trace=trace))
    again = tmp_path / "two.trace"
    run_files([path], RunOptions(seed=seed, swarm=True, trace=again))
    assert trace.read_bytes() == again.read_bytes()
    ran = play_seed(job(), seed)
    assert ran == play_seed(job(), seed)
    assert f"{ran.steps} steps" in trace.read_text()


@in_one_test(
    ("takes", "slower"),
    [
        ("2s", "6s"),
        ("1s..3s", "3s..9s"),
        ("normal(2s 1s)", "normal(6s 3s)"),
        ("lognormal(p50=1s p99=2s)", "lognormal(p50=3s p99=6s)"),
        ("exp(2s)", "exp(6s)"),
        ("choice(90%=1s 10%=2s..4s)", "choice(90%=3s 10%=6s..12s)"),
        ("5m", "5m"),
        ("60s", "1m30s"),
    ],
)
def test_a_latency_is_scaled_in_every_form_and_no_further_than_a_saga_waits(takes, slower):
    assert scaled(parse_distribution(takes, lambda _: ()), 3, 1).show() == slower


def test_a_swarm_without_a_wrong_is_judged_by_invariants_alone():
    assert all(expect.always for expect in scenario_of(job(), 7).expect)


def test_with_a_wrong_one_only_what_the_right_one_does_not_do_is_a_failure():
    happy = of_library("happy")
    boots = next(one for one in happy.expect if one.name == "boots")
    scenario = attrs.evolve(happy, expect=(attrs.evolve(boots, name="impossible", within=1),))
    wrong = Job("x", scenario, How(variant="stopped-too-early"), swarm=True)
    failing = [play_seed(wrong, fresh(0, n)) for n in range(3)]
    keys = {key for ran in failing for key, _ in ran.failures}
    assert "nexus_properties/38" in keys
    assert "expect/impossible" not in keys


def rounds(guide, given_runs, number):
    """Seeds of the first rounds, if each run reaches what `given_runs` says."""
    came = []
    for round_ in islice(guide.rounds(), number):
        these = list(round_)
        came.append(these)
        for seed in these:
            guide.learn(given_runs(seed))
    return came


def test_a_guided_round_depends_on_what_was_reached_and_on_nothing_else():
    def reaches(seed):
        return Ran(seed, 1, 1, (), frozenset({seed % 7}))

    def reaches_nothing(seed):
        return Ran(seed, 1, 1)

    one, two = rounds(Guided(5), reaches, 4), rounds(Guided(5), reaches, 4)
    assert one == two
    assert [len(round_) for round_ in one] == list(ROUNDS[:4])
    assert one[0] == rounds(Guided(5), reaches_nothing, 1)[0]
    assert one[1] != rounds(Guided(5), reaches_nothing, 2)[1]


def alike(seed, other):
    """How many parts two seeds share."""
    return sum(byte_of(seed, part) == byte_of(other, part) for part in PARTS)


def test_what_reached_something_new_is_changed_in_the_next_rounds_early_in_every_fourth_run_then_in_every_second():
    newcomer = fresh(5, 4)

    def reaches(seed):
        return Ran(seed, 1, 1, (), frozenset({1} if seed == newcomer else ()))

    first, *early, later = rounds(Guided(5), reaches, len(ROUNDS))
    assert newcomer in first
    assert sum(map(len, (first, *early))) == EARLY
    for round_, every in [*((each, 4) for each in early), (later, 2)]:
        heirs = [seed for seed in round_ if alike(seed, newcomer) >= len(PARTS) - 3]
        assert len(heirs) == len(round_) // every


def test_who_reached_a_new_pair_has_more_heirs_than_who_reached_a_new_whole():
    common, rare = fresh(5, 2), fresh(5, 4)

    def reaches(seed):
        return Ran(seed, 1, 1, (), frozenset({2} if seed == common else {3} if seed == rare else ()))

    later = [seed for round_ in rounds(Guided(5), reaches, len(ROUNDS))[1:] for seed in round_]
    heirs = {one: sum(alike(seed, one) >= len(PARTS) - 3 for seed in later) for one in (common, rare)}
    assert heirs[rare] > 2 * heirs[common] > 0


def test_parts_of_two_seeds_that_reached_something_come_together():
    one, other = fresh(5, 2), fresh(5, 4)

    def reaches(seed):
        return Ran(seed, 1, 1, (), frozenset({3} if seed == one else {5} if seed == other else ()))

    later = [seed for round_ in rounds(Guided(5), reaches, len(ROUNDS))[1:] for seed in round_]
    both = [seed for seed in later if alike(seed, one) >= 2 and alike(seed, other) >= 2]
    assert any(alike(seed, one) + alike(seed, other) == len(PARTS) - 1 for seed in both), (
        "all but the run's own chance"
    )


def test_a_family_comes_with_its_users_and_the_latencies_that_its_moments_rest_on():
    few = of_library("happy")
    drawn = {byte: swarmed(few, with_byte(fresh(0, 1), "faults", byte)) for byte in range(0, 256, 6)}
    guest_dies = "swarm-of-stop-overruled-guest-dies"
    overruled = {byte: one for byte, one in drawn.items() if any(rule.name == guest_dies for rule in one.rules)}
    assert overruled
    for one in overruled.values():
        [stop] = [load for load in one.load if load.name and load.name.startswith("swarm-stop-overruled")]
        assert (stop.at, stop.stop) == (36_000_000, Selector())
    own = of_library("stop-overruled")
    slow = swarmed(few, with_byte(with_byte(fresh(0, 1), "faults", min(overruled)), "latency", 1))
    assert (slow.latency, slow.nexus.saga_node) == (own.latency, own.nexus.saga_node)
    assert any(any(rule.name.startswith("swarm-1-") for rule in one.rules) for one in drawn.values()), (
        "single faults come, too"
    )


def test_a_nexus_that_dies_does_so_at_every_point():
    dies = next(rule for rule in catalogue() if rule.name == "nexus-outage-nexus-dies")
    points = {placed(dies, 0, ["sled-1"], Draws("places", byte)).do[0].point for byte in range(32)}
    assert points == {"now", "after_commit", "in_commit"}


def guided(one, path, runs, place=None, *, resume=False):
    guide = Guided(3)
    sheet = Sheet.open(path, head_of(one, guide.order, "1"), resume=resume)
    try:
        return explore(one, guide, runs, place, sheet=sheet)
    finally:
        sheet.close()


@pytest.mark.parametrize(
    ("name", "runs", "interrupted"),
    [
        ("happy", ROUNDS[0] + 2, (ROUNDS[0] + 1,)),
        pytest.param(
            "stuck-stop", SECOND + 3, (ROUNDS[0], ROUNDS[0] + 1, SECOND + 2), marks=pytest.mark.long, id="much of it"
        ),
    ],
)
def test_a_guided_campaign_is_the_same_after_every_interruption(tmp_path, name, runs, interrupted):
    one = job(name)
    whole = guided(one, tmp_path / "whole", runs)
    bytes_ = (tmp_path / "whole").read_bytes()
    assert whole.covered > 100
    lines = bytes_.splitlines(keepends=True)
    for at in interrupted:
        path = tmp_path / f"cut-{at}"
        path.write_bytes(b"".join(lines[:at]) + b'{"seed"')
        assert guided(one, path, runs, resume=True).covered == whole.covered
        assert path.read_bytes() == bytes_


@pytest.mark.long
def test_a_guided_campaign_is_the_same_with_any_number_of_players(tmp_path):
    """That two players give the bytes of one is `test_explore.py`'s; here what they learn is told from one to all."""
    one = job("stuck-stop")
    guided(one, tmp_path / "one", SECOND + 3)
    place = Processes(one, 2)
    try:
        guided(one, tmp_path / "two", SECOND + 3, place)
    finally:
        place.close()
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_an_unguided_swarm_keeps_no_coverage():
    guide = Swarm(0)
    assert guide.learn(Ran(1, 1, 1, (), frozenset({4}))).reached == frozenset()


def test_a_guided_swarm_finds_a_wrong_that_plain_seeds_do_not():
    """The one that needs a report to come twice; the table of all is in docs/campaigns.md."""
    wrong = job(variant="accepts-equal-generation")
    assert explore(wrong, Guided(0), 40, stop_after=1).failed


def test_an_answer_500_of_a_sled_whose_propolis_a_rule_has_silenced_is_explained():
    """Found by the swarm over `happy`: seed 3049387387729736248, `vmm_put_state answered 500`."""
    text = """
version: 1
name: silenced
load: [{at: 0s, create: {hostname: web}}, {at: 30s, stop: {}}]
rules: [{name: gone, when: {state: running}, do: {kill_propolis: {restart: false}}}]
expect: [{always: [no_unexplained_5xx]}]
"""
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    result = play(scenario, 1)
    assert any("500" in line.text for line in result.lines)
    assert result.failures == ()


ENDED_BUT_NOT_TOLD = """
version: 1
name: ended-but-not-told
fleet: {sleds: 1, shape: {ram: 16GiB, reservoir: 8GiB}}
load:
- {at: 0s, create: {hostname: "web-{n}", count: 2, memory: 4GiB}}
- {at: 10s, stop: {}}
- {at: 100s, start: {}}
rules: [{name: silent, when: {state: stopping}, times: 2, do: {hold: {publish: "*", lasts: 5m}}}]
expect: [{always: [capacity]}]
"""


def test_a_vmm_that_has_ended_takes_no_room_however_late_its_end_is_told():
    """Found by the swarm over a crowd of users, seed 2704252310157845447: capacity."""
    scenario, problems = parse_scenario(ENDED_BUT_NOT_TOLD)
    assert scenario is not None, problems.text()
    result = play(scenario, 1)
    assert result.counts["vmms"] > 2
    assert result.failures == ()


@pytest.mark.parametrize("first", [0, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.nightly
def test_a_swarm_over_right_ones_is_green(first):
    """A tenth of its seeds failed: stops met VMMs that no sled knew yet, or no longer (`fails_unregistered`)."""
    explored = explore(attrs.evolve(job(), covers=False), Swarm(first), by_profile(8, nightly=60))
    assert [group.text for group in explored.groups.values()] == []


def test_a_file_without_a_word_of_hazards_means_a_right_nexus_to_a_swarm_and_the_recorded_one_to_a_run():
    assert scenario_of(job(), 7).nexus.hazards == ("none",)
    assert scenario_of(attrs.evolve(job(), swarm=False), 7).nexus.hazards is None
    named = attrs.evolve(
        of_library("happy"), nexus=attrs.evolve(of_library("happy").nexus, hazards=("reservation_lags",))
    )
    assert scenario_of(Job("x", named, How(), swarm=True), 7).nexus.hazards == ("reservation_lags",)


LEFT_BEHIND = """
version: 1
name: left-behind
nexus: {hazards: none}
load: [{at: 0s, create: {hostname: web}}]
rules:
- {name: cannot-run, when: {request: vmm_put_state}, do: {fail: 503}}
- {name: cannot-go, when: {request: vmm_unregister}, do: {fail: 503}}
expect: [{always: [no_leaks]}]
"""


def test_a_vmm_is_no_leak_if_a_rule_kept_nexus_from_giving_it_up_and_is_one_if_its_sled_kept_it():
    """Found by the swarm over `happy`: seed 972964504420177357."""
    scenario, problems = parse_scenario(LEFT_BEHIND)
    assert scenario is not None, problems.text()
    assert play(scenario, 1).failures == ()
    heard = attrs.evolve(scenario, rules=scenario.rules[:1])
    assert play(heard, 1).failures == ()
    kept = play(heard, 1, How(sled_variant="keeps-what-is-unregistered")).failures
    assert [failure.key for failure in kept] == ["no_leaks"]


LOST_AT_HAND_OVER = """
version: 1
name: lost-at-hand-over
nexus: {hazards: none}
load: [{at: 0s, create: {hostname: web}}, {at: 20s, migrate: {hostname: web}}]
rules:
- {name: dies, for: {role: target}, when: {migration: finish}, times: 1, do: {kill_propolis: {restart: true}}}
expect: [{always: [one_running_vmm, no_leaks]}]
"""


def test_a_source_that_resumes_at_the_hand_over_is_not_blamed_and_one_that_runs_on_is():
    """Found by the swarm over `happy`: seed 13382060546601658197."""
    scenario, problems = parse_scenario(LOST_AT_HAND_OVER)
    assert scenario is not None, problems.text()
    lines = [str(line) for line in play(scenario, 1).lines]
    assert any("migrating -> running out=Error" in line for line in lines)
    assert play(scenario, 1).failures == ()
    moved = attrs.evolve(scenario, rules=())
    blamed = play(moved, 1, How(sled_variant="source-runs-on")).failures
    assert "one_running_vmm" in {failure.key for failure in blamed}


def test_impatient_users_ask_a_little_after_the_moment_at_which_faults_come():
    lags, verbs = set(), set()
    for byte in range(0, 256, 5):
        for load in swarmed(of_library("happy"), with_byte(0, "load", byte)).load:
            if load.name and load.name.startswith("swarm-impatient"):
                lags.add(load.from_ - MOMENT_US)
                verbs.add(load.action())
    assert {0, 70_000, 1_000_000} <= lags
    assert verbs == {"stop", "start", "delete", "reboot", "migrate"}
    for seed in range(12):
        for rule in swarmed(of_library("happy"), fresh(0, seed)).rules:
            of_family = rule.name.startswith("swarm-of-")  # which keeps its own times
            assert rule.when.at is None or rule.when.at % MOMENT_US == 0 or of_family
