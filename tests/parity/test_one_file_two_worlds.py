"""The parity contract: what a scenario means in virtual time it means on sockets (docs/architecture.md).

Each action under each trigger, as a small scenario, is played in both worlds; for every VMM the sequence of kinds of
happenings must be the same. What sockets may decide otherwise is named in sim_sled/language/worlds.py, one by one.

Rules are played side by side on sockets: they wait far more than they work. Every day each action has its turn under
a trigger, and each trigger with some actions; all pairs are `make test-long`.
"""

import asyncio
import re
from collections import deque
from functools import cache
from itertools import islice

import pytest

from sim_sled import logs
from sim_sled.daemon import on_sockets
from sim_sled.engine import reports
from sim_sled.language.actions import ACTIONS
from sim_sled.language.check import parse_scenario
from sim_sled.language.words import On
from sim_sled.language.worlds import World, only_somewhere
from sim_sled.play import conductor, virtual
from sim_sled.play.run import How, play

SEED = 5
SETTLE_S = 0.6
"""Longer than any wait of these scenarios; shorter than what people get, who may have forgotten to end theirs."""

CALL_TIMEOUT_S = 1.0
REPORT_LOST_US = 400_000
SIDE_BY_SIDE = 12  # a trigger has up to 25 rules: two rounds, not three
PARTS = 3
"""Of what is played every day: each is one round."""
AGAIN = (1, 1, 4)
"""What differs in company is played again, alone and at last so many times slower, in both worlds: a meaning differs
each time, a late clock does not.
"""
UNTIL_US = 12_000_000
"""Before the first round of Nexus's background tasks: on sockets nobody waits for it."""

TRIGGERS = {
    "request": "request: vmm_put_state, to: stopped",
    "response": "response: vmm_register",
    "state": "state: running",
    "edge": "edge: starting -> running",
    "migration": "migration: sync",
    "publish": "publish: running",
    "at": "at: 600ms",
    "every": "every: 600ms, to: 700ms",
    "idle": "idle: 450ms",
    "rule": "rule: first",
    "manual": "manual: go",
}
TEXT = """version: 1
name: parity
seed: {seed}
fleet: {{sleds: {sleds}}}
agent: {{stop_grace: 700ms, retry: {{first: 100ms, factor: 1, max: 100ms}}}}
latency: {{preset: instant, starting -> running: 120ms, stopping -> stopped: 80ms, stopped -> destroyed: 80ms,
          rebooting -> running: 80ms, migration sync: 80ms}}
load:
- {{at: 0s, create: {{hostname: web}}}}
- {{at: 1300ms, {last}}}
rules:
- name: ours
  {whom}
  when: {{{when}}}
  times: 1
  do: {{{action}: {value}}}
- {{name: held, for: {{hostname: nobody}}, when: {{publish: running}}, do: {{hold: {{lasts: 150ms}}}}}}
- {{name: first, when: {{state: running}}, times: 1, do: {{note: x}}}}
- {{name: fires, when: {{state: running}}, times: 1, do: {{fire: go}}}}
- {{name: goes, when: {{manual: go}}, do: {{note: z}}}}
- {{name: takes, when: {{manual: further}}, do: {{note: y}}}}
expect: [{{always: [time_ordered]}}]
"""


def text_of(trigger, action):
    about_sled = action in ("restart_agent", "reboot_sled", "power_off_sled", "expunge_sled", "set", "clock")
    untold = trigger in ("at", "every", "idle", "manual", "rule")
    whom = (
        "for: {sled: sled-1}"
        if about_sled and untold
        else "for: {hostname: web}"
        if untold and not about_sled
        else ""
    )
    when = TRIGGERS[trigger]
    if action == "migration" and trigger == "request":
        when = "request: vmm_put_state, to: migration_target"
    migrates = trigger == "migration" or action == "migration"
    last = "migrate: {hostname: web}" if migrates else "stop: {hostname: web}"
    return TEXT.format(
        seed=SEED,
        sleds=2 if migrates else 1,
        last=last,
        whom=whom,
        when=when,
        action=action,
        value=ACTIONS[action].example,
    )


def slower(text, times):
    return re.sub(r"(\d+)ms", lambda match: f"{int(match[1]) * times}ms", text)


@cache
def allowed():
    """(trigger, action) -> scenario, of those that the language allows; made when they are first played."""
    pairs = [(trigger, action) for trigger in TRIGGERS for action in ACTIONS]
    return {pair: scenario for pair in pairs if (scenario := scenario_of(*pair)) is not None}


@cache
def scenario_of(trigger, action):
    """None: the language refuses it."""
    return parse_scenario(text_of(trigger, action))[0]


def compared():
    """Those that mean the same in both worlds: all but what `language/worlds.py` names, as `check` and `run` tell."""
    return {pair: scenario for pair, scenario in allowed().items() if means_the_same(scenario)}


def means_the_same(scenario):
    return not any(only.world is World.SOCKETS for _, only in only_somewhere(scenario))


@cache
def daily():
    """Of `compared` each action under one trigger, which is another for the next action."""
    found, triggers = {}, deque(TRIGGERS)
    for action in ACTIONS:
        pairs = ((trigger, action) for trigger in list(triggers))
        good = ((pair, each) for pair in pairs if (each := scenario_of(*pair)) and means_the_same(each))
        found |= dict(islice(good, 1))
        triggers.rotate(-1)
    return found


COMPARED = {
    "registered",
    "propolis",
    "acked",
    "given-up",
    "forgotten",
    "lost",
    "unregistered",
    "rule",
    "note",
    "injected",
    "snapshot",
}
"""Kinds that both worlds tell of a VMM. How often something is sent depends on the clock; what arrives does not."""


def happenings(lines):
    """VMM ("-": nobody) -> the kinds of what happened to it, in order, with the states. What Nexus has acknowledged
    is a sequence of its own: how far the sled was by then is a matter of a millisecond.
    """
    found = {}
    for line in lines:
        if line.kind in COMPARED:
            text = f"{line.kind} {line.text.split(' gen ')[0].split(' (')[0]}"
            if line.kind == "snapshot":
                text = text.partition(":")[0]  # what is in it depends on the moment
            found.setdefault((line.vmm, line.kind == "acked"), []).append(text)
    return found


def in_virtual_time(scenario):
    return play(scenario, SEED, How(until_us=UNTIL_US))


async def on_real_sockets(wanted, side_by_side):
    """pair -> its lines. Few at a time: on a busy machine everything would come late, and users do not wait."""
    room = asyncio.Semaphore(side_by_side)

    async def one(scenario):
        async with room:
            return (await on_sockets.play_on_sockets(scenario, SEED, lambda _line: None)).lines

    return dict(zip(wanted, await asyncio.gather(*map(one, wanted.values())), strict=True))


def differences(wanted, sockets):
    """What is not the same, in words, by pair."""
    found = {}
    for pair, scenario in wanted.items():
        closed = in_virtual_time(scenario)
        left, right = happenings(closed.lines), happenings(sockets[pair])
        fired = {line.text.split(" (")[0] for line in closed.lines if line.kind == "rule"}
        if left != right:
            # what is told is shown in full: a difference is to be read, not guessed
            found[pair] = f"{pair}:\n  virtual {left}\n  sockets {right}"
        elif "ours" not in fired:
            found[pair] = f"{pair}: the rule never fired, so nothing was compared"
    return found


def test_every_action_and_every_trigger_is_played():
    """An action whose example no trigger takes would be compared nowhere."""
    assert {trigger for trigger, _ in daily()} == set(On) == set(TRIGGERS)
    assert {action for _, action in daily()} == set(ACTIONS)


@pytest.mark.long
def test_every_pair_that_the_language_allows_is_played_but_for_one():
    # how many pairs there are: a smaller number means that somebody forbade something
    assert len(compared()) >= 180
    # each that only one world can do is one more thing that a scenario cannot be trusted with: none is added unseen
    assert set(allowed()) - set(compared()) == {("response", "set_state")}


def at(pace, monkeypatch):
    """The same in both worlds, and short: nobody wants to wait a minute for a time-out that comes anyway."""
    monkeypatch.setattr(on_sockets, "SETTLE_S", SETTLE_S * pace)
    monkeypatch.setattr(on_sockets, "CALL_TIMEOUT_S", CALL_TIMEOUT_S * pace)
    for module in (conductor, reports):
        monkeypatch.setattr(module, "CLIENT_LOST_US", REPORT_LOST_US * pace)
    monkeypatch.setattr(virtual, "CONNECT_LOST_US", int(CALL_TIMEOUT_S * 1e6) * pace)
    monkeypatch.setattr(virtual, "CONNECT_SILENT_US", int(CALL_TIMEOUT_S * 1e6) * pace)


def assert_the_same(wanted, monkeypatch):
    logs.configure(level="critical")
    at(1, monkeypatch)
    found = differences(wanted, asyncio.run(on_real_sockets(wanted, SIDE_BY_SIDE)))
    for pace in AGAIN:
        at(pace, monkeypatch)
        again = {pair: parse_scenario(slower(text_of(*pair), pace))[0] for pair in found}
        found = differences(again, asyncio.run(on_real_sockets(again, 1)))
    assert not found, "\n".join(found.values())


@pytest.mark.early
@pytest.mark.parametrize("part", range(PARTS))
def test_each_action_means_the_same(part, monkeypatch):
    wanted = dict(list(daily().items())[part::PARTS])
    assert 0 < len(wanted) <= SIDE_BY_SIDE
    assert_the_same(wanted, monkeypatch)


@pytest.mark.early
@pytest.mark.long
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_each_action_means_the_same_under(trigger, monkeypatch):
    assert_the_same({pair: each for pair, each in compared().items() if pair[0] == trigger}, monkeypatch)
