"""pacer.py: presets, and that chance is a function of the seed."""

from uuid import UUID

import pytest
from support.rows import in_one_test

from propolis_stub import presets
from propolis_stub.types import InstanceState
from propolis_stub.waiting import MILESTONES, Edge, Pace, Point
from sim_sled.core.estate import SledPoint
from sim_sled.language.distribution import Fixed
from sim_sled.language.pacer import PresetPacer
from sim_sled.language.presets import PRESETS

_VM, _OTHER = UUID(int=1), UUID(int=2)
_ANYWHERE = Edge(None)
_RUNNING = Edge(InstanceState.RUNNING)


def drawn(preset, point, edge=_ANYWHERE, seed=7):
    return [PresetPacer(preset, seed).pace(_VM, point, number, edge).after_us for number in range(50)]


@in_one_test("preset", PRESETS)
def test_no_preset_fails_or_waits_for_ever(preset):
    pacer = PresetPacer(preset)
    for point in Point:
        pace = pacer.pace(_VM, point, 0, _ANYWHERE)
        assert not pace.fail
        assert (1 if point in MILESTONES else 0) <= pace.after_us < 60_000_000


@in_one_test("preset", PRESETS)
def test_what_is_spread_is_drawn_around_its_typical_time(preset):
    for point, what in ((Point.BACKENDS, "starting -> running"), (Point.RUNDOWN, "stopped -> destroyed")):
        row = next((row for row in presets.PRESETS[preset].rows if row.what == what), None)
        if row is None:
            continue
        seen = sorted(drawn(preset, point))
        assert (len(set(seen)) > 1) == bool(row.spread), point
        assert seen[5] <= max(1, row.typical_us) <= seen[45], point


@in_one_test("preset", presets.PRESETS.values(), ids=lambda preset: preset.name)
def test_the_typical_time_of_a_row_is_the_middle_of_its_distribution(preset):
    """One table: what `propolis-stub --pace` waits is what a scenario draws around."""
    for row in preset.rows:
        kind, what = ("sled", row.what[5:]) if row.what.startswith("sled ") else ("", "")
        of = PRESETS[preset.name]
        takes = of.sled[what] if kind else next(t for (k, w), t in of.takes.items() if row.what in (w, f"{k} {w}"))
        assert abs(takes.at(2**63) - row.typical_us) <= row.typical_us // 10, row
        assert isinstance(takes, Fixed) != bool(row.spread)


@in_one_test("preset", presets.PRESETS)
def test_an_option_and_a_scenario_mean_the_same_by_a_name(preset):
    """`--pace dev` of a daemon without a scenario, and `latency: dev`: once they were two different tables."""
    for point, takes in presets.paces(preset).items():
        # whoever draws is woken so late; whoever does not takes as long to be made
        at = (Point.WAKE, Edge(InstanceState.CREATING)) if point is Point.CREATE else (point, _RUNNING)
        seen = sorted(drawn(preset, *at))
        assert seen[5] <= takes.after_us <= seen[45], point


def test_dev_can_be_watched_and_the_figures_of_a_real_rack_are_those_of_rack():
    """`serve --pace dev` had the latter, and has another meaning since there is one table."""
    dev, rack = presets.paces("dev"), presets.paces("rack")
    assert (dev[Point.BACKENDS], dev[Point.HALT]) == (Pace(1_500_000), Pace(1_500_000))
    assert (rack[Point.CREATE], rack[Point.BACKENDS]) == (Pace(2_800_000), Pace(3_200_000)), "omicron#1215"


def test_points_that_are_not_named_take_no_time():
    assert PresetPacer("sim").pace(_VM, Point.BACKENDS, 0, _ANYWHERE) == Pace(0)


@pytest.mark.parametrize("edge", [_ANYWHERE, _RUNNING, Edge(InstanceState.CREATING)])
def test_the_sim_preset_wakes_after_a_second_and_a_half(edge):
    """SA 2.9: 1500 ms from the request."""
    assert PresetPacer("sim").pace(_VM, Point.WAKE, 3, edge) == Pace(1_500_000)
    assert presets.paces("sim")[Point.WAKE] == Pace(1_500_000)


def test_a_first_start_is_woken_in_another_time_than_a_stop():
    assert PresetPacer("console").pace(_VM, Point.WAKE, 0, Edge(InstanceState.CREATING)) == Pace(1_500_000)
    assert PresetPacer("console").pace(_VM, Point.WAKE, 0, _RUNNING) == Pace(1)


def test_a_sled_takes_its_time_too():
    drawn = [PresetPacer("rack").sled_pace_us(_VM, SledPoint.RECONCILE, number) for number in range(50)]
    assert 3_000_000 <= min(drawn) < max(drawn) <= 10_000_000
    assert PresetPacer("sim").sled_pace_us(_VM, SledPoint.RECONCILE, 0) == 0, "SR 3.2: idle right after each PUT"


def test_the_same_seed_draws_the_same_and_another_draws_differently():
    def draws(seed, vm_id=_VM):
        return [
            PresetPacer("rack", seed).pace(vm_id, Point.RUNDOWN, number, _ANYWHERE).after_us for number in range(5)
        ]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(1) != draws(1, _OTHER)


def test_an_unknown_preset_is_a_key_error():
    with pytest.raises(KeyError):
        PresetPacer("no such rhythm")


def test_a_misspelt_preset_is_told_the_nearest():
    with pytest.raises(presets.NoPreset, match=r"there is no 'consol' \(did you mean 'console'\?\)"):
        presets.preset_named("consol")
