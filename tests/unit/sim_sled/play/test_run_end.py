"""When a run is over: not before what its file plans has been done, however long nothing has happened."""

from support.rows import in_one_test

from sim_sled.language.check import parse_scenario
from sim_sled.play.run import play


@in_one_test("at", ["864s", "900s", "863.999s", "930s"])  # some of them when Nexus's tasks run as well
def test_what_is_planned_after_a_long_silence_is_done(at):
    text = f"""
version: 1
load: [{{at: 0s, create: {{hostname: web}}}}, {{at: {at}, reboot: {{hostname: web}}}}]
"""
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    result = play(scenario, 1)
    assert [line.text for line in result.lines if line.kind == "user"] == ["create web: 201", "reboot web: 202"]
    assert any("rebooting -> running" in line.text for line in result.lines)
