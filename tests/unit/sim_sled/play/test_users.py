"""Whom users of the control plane mean: each fact that a selector can look at tells one instance from another."""

from itertools import chain

from support.rows import in_one_test

from sim_sled.language.check import parse_scenario
from sim_sled.play.run import play

TEXT = """
version: 1
fleet: {{sleds: 2}}
load:
- {{at: 0s, create: {{hostname: web, project: shop, silo: north, ncpus: 4, memory: 8GiB, sled: sled-1}}}}
- {{at: 5s, create: {{hostname: db, project: books, silo: south, ncpus: 2, memory: 2GiB, sled: sled-2}}}}
- {{at: 6s, create: {{hostname: off, start: false, project: attic, silo: attic, ncpus: 1, memory: 1GiB}}}}
- {{at: 20s, reboot: {selector}}}
rules: [{{name: slow, for: {{hostname: db}}, when: {{state: starting}}, do: {{stall: forever}}}}]
"""


def asked(selector):
    """The host names that were asked to reboot, in order."""
    scenario, problems = parse_scenario(TEXT.format(selector=selector))
    assert scenario is not None, problems.text()
    lines = [line.text for line in play(scenario, 1).lines if line.kind == "user"]
    return sorted(line.split()[1].rstrip(":") for line in lines if line.startswith("reboot"))


@in_one_test(
    "selector, meant",
    [
        ("{}", ["db", "off", "web"]),
        ("{hostname: 'w*'}", ["web"]),
        ("{project: shop}", ["web"]),
        ("{project: books}", ["db"]),
        ("{silo: north}", ["web"]),
        ("{silo: south}", ["db"]),
        ("{project: north}", []),
        ("{ncpus: 4}", ["web"]),
        ("{ncpus: 1..2}", ["db", "off"]),
        ("{memory: 8GiB}", ["web"]),
        ("{sled: sled-2}", ["db"]),
        ("{vmm: v1}", ["web"]),
        ("{nth_vmm: 2}", ["db"]),
        ("{state: running}", ["web"]),
        ("{not: {state: running}}", ["db", "off"]),
        ("{role: target}", []),
    ],
)
def test_users_mean_what_a_selector_says_of_instances(selector, meant):
    assert asked(selector) == meant


def test_an_instance_is_meant_by_its_id():
    found = [asked(f"{{instance: '{digit}*'}}") for digit in "0123456789abcdef"]
    assert sorted(chain.from_iterable(found)) == ["db", "off", "web"]
    assert ["db", "off", "web"] not in found


def test_an_instance_whose_user_wants_no_automatic_restart_stays_failed():
    text = """
version: 1
fleet: {sleds: 2}
load:
- {at: 0s, create: {hostname: web, auto_restart: never}}
- {at: 0s, create: {hostname: db, auto_restart: best_effort}}
rules: [{name: fails, when: {state: running}, times: 2, do: [{delay: 10s}, {set_state: failed}]}]
"""
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    restarted = [line.text for line in play(scenario, 1).lines if "auto-restart" in line.text]
    assert restarted == ["db: auto-restart"]
