"""A recording outlives the program that made it: what is in tests/data/recordings was recorded earlier."""

from pathlib import Path

import pytest
from support.rows import in_one_test

from sim_sled.daemon.recordings import opened
from sim_sled.language.pacer import PresetPacer
from sim_sled.recording import names
from sim_sled.recording.forms import form, value_of
from sim_sled.recording.names import BESIDE, BEYOND, ROOMS, BadName, class_of, function_of, is_ours
from sim_sled.recording.replaying import replay

OLD = Path(__file__).parents[3] / "data" / "recordings"
KNOWN = (OLD / "names.txt").read_text().split()


@in_one_test("name", KNOWN)
def test_what_a_recording_of_before_names_is_still_there(name):
    """Red: something that recordings name has moved. Give it a line in `recording.names.MOVED`."""
    of = function_of if name.partition(":")[2].rpartition(".")[2][0].islower() else class_of
    assert of(name)


@pytest.mark.parametrize("of", ["rough", "migrated"], ids=["of a rack with rules", "of VMs that came and went"])
def test_a_recording_of_before_replays(of):
    """Red: it cannot be read any more (mend that: `MOVED`, or a default for a new field); or a core decides otherwise
    than it did, on purpose: then record a new one, as `sim-sled up --record` and `replay --scrub` do.
    """
    found = replay(opened(OLD / of).lines())
    assert found.difference is None
    assert found.turns > 40


def test_what_has_moved_is_found_by_its_old_name(monkeypatch):
    old = "sim_sled.core.long_ago:Before"
    with pytest.raises((BadName, ImportError)):
        class_of(old)
    monkeypatch.setattr(names, "MOVED", {old: "sim_sled.core.config:SledConfig"})
    told = form(value_of(form_of_a_sled()))
    assert value_of({**told, "~": old}) == value_of(told)


def form_of_a_sled():
    return opened(OLD / "rough").header.sleds[0]


def test_a_pacer_is_what_it_is_made_of_whatever_it_is_inside():
    told = form(PresetPacer("sim", 7))
    assert told == {"~": "sim_sled.language.pacer:PresetPacer", "preset": "sim", "seed": 7}
    again = value_of({**told, "_takes": "of another day"})
    assert (again.preset, again.seed) == ("sim", 7)
    assert form(again) == told


@in_one_test("module", [*BEYOND, "sim_sled.play.many.anything", "sim_sled.daemon.daemon", "os"])
def test_what_does_io_may_not_be_named(module):
    assert not is_ours(module)
    with pytest.raises(BadName, match="is no room of ours"):
        class_of(f"{module}:Anything")


@in_one_test("module", [*ROOMS, *BESIDE, "sim_sled.core.vmm"])
def test_rooms_without_io_may_be_named(module):
    assert is_ours(module)
