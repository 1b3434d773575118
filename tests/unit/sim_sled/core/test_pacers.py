"""pace.py: presets, and that chance is a function of the seed."""

from uuid import UUID

import pytest

from propolis_stub.waiting import Edge, Pace, Point
from sim_sled.core import pacers
from sim_sled.core.pacers import PRESETS, PresetPacer

_VM, _OTHER = UUID(int=1), UUID(int=2)
_ANYWHERE = Edge(None)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_fails_or_waits_for_ever(preset):
    pacer = PresetPacer(preset)
    for point in Point:
        pace = pacer.pace(_VM, point, 0, _ANYWHERE)
        assert not pace.fail
        assert 0 <= pace.after_us < 60_000_000


@pytest.mark.parametrize("preset", PRESETS)
def test_a_draw_lies_within_the_presets_bounds(preset):
    pacer = PresetPacer(preset, seed=7)
    for point, (low, high) in PRESETS[preset].items():
        drawn = {pacer.pace(_VM, point, occurrence, _ANYWHERE).after_us for occurrence in range(50)}
        assert low <= min(drawn) <= max(drawn) <= high
        assert (len(drawn) > 1) == (low < high), point


def test_the_shortest_and_the_longest_duration_can_be_drawn(monkeypatch):
    for point, (low, high) in PRESETS["dev"].items():
        for drawn, after_us in ((0, low), (high - low, high), (high - low + 1, low), (2 * (high - low) + 1, high)):
            monkeypatch.setattr(pacers, "draw", lambda *_, drawn=drawn: drawn)
            assert PresetPacer("dev").pace(_VM, point, 0, _ANYWHERE) == Pace(after_us)


def test_points_that_are_not_named_take_no_time():
    assert PresetPacer("sim").pace(_VM, Point.BACKENDS, 0, _ANYWHERE) == Pace(0)


def test_the_sim_preset_wakes_after_a_second_and_a_half():
    """SA 2.9: 1500 ms from the request."""
    assert PresetPacer("sim").pace(_VM, Point.WAKE, 3, _ANYWHERE) == Pace(1_500_000)


def test_the_same_seed_draws_the_same_and_another_draws_differently():
    def draws(seed, vm_id=_VM):
        return [
            PresetPacer("dev", seed).pace(vm_id, Point.RUNDOWN, number, _ANYWHERE).after_us for number in range(5)
        ]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(1) != draws(1, _OTHER)


def test_an_unknown_preset_is_a_key_error():
    with pytest.raises(KeyError):
        PresetPacer("no such rhythm")
