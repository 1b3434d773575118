"""`why` at any moment of any life: one sentence per subject, and never two things that exclude each other."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sim_sled.core.why import why
from sim_sled.language.check import load_scenarios
from sim_sled.play.virtual import World

SCENARIOS = sorted(Path("scenarios").glob("*.yaml"))
SUBJECTS = {
    "where it is": ("will rest in",),
    "what Nexus wants": ("Nexus last asked", "Nexus has asked for nothing"),
    "Propolis": ("Propolis waits", "Its Propolis", "It has no Propolis"),
    "what Nexus knows": (
        "Nexus acknowledged", "Nexus is being told", "Nexus does not take", "Nexus is about to be told",
        "Nexus has refused",
    ),
}  # fmt: skip
EXCLUDE = [
    ("for ever", " more."), ("for ever", "until somebody"), ("held", " more."),
    ("none was needed", "is gone"), ("None", ""),
]  # fmt: skip


@settings(max_examples=25)
@given(path=st.sampled_from(SCENARIOS), seed=st.integers(0, 10), steps=st.integers(1, 1_500))
def test_why_never_says_two_things_that_exclude_each_other(path, seed, steps):
    [loaded, *_], problems = load_scenarios([str(path)])
    assert loaded.scenario is not None, problems.text()
    world = World(loaded.scenario, seed)
    world.begin()
    for step in range(steps):
        if not world.step():
            break
        if step % 50 and step != steps - 1:
            continue
        for sled in world.rack.sleds.values():
            for vmm in sled.vmms.values():
                answer = why(sled, vmm, world.now_us)
                says = answer["says"]
                for subject, beginnings in SUBJECTS.items():
                    about = [line for line in says if any(each in line for each in beginnings)]
                    assert len(about) == 1, (subject, says)
                for line in says:
                    assert not [pair for pair in EXCLUDE if all(each in line for each in pair)], line
                assert ("has no Propolis" in " ".join(says)) <= (answer["propolis"] is None)
                assert (answer["told_nexus"] is None) == ("Nexus acknowledged" in says[3] or "has refused" in says[3])
