"""NX 7 #1 to #28, each a function named by its number, checked after each step of the rack machine.

A function gets the machine and what is new since the last step, and asserts. What is said is said of a *life* of a
VMM: one registration. Property 27 is about the sled's own registration and has a machine of its own
(test_registration_machine.py).
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from nexus_client.codec import encode
from nexus_client.types import SledVmmState
from sim_sled.core import errors

THE_EIGHT = {"starting", "running", "stopping", "stopped", "rebooting", "migrating", "failed", "destroyed"}
DONE = {"completed", "failed"}


@attrs.frozen
class Said:
    """One thing that Nexus could read about one life: a publication (with its attempt) or the record of an answer."""

    life: int
    propolis_id: Any
    body: SledVmmState
    at_us: int
    attempt: int | None = None  # None: an answer
    newest: SledVmmState | None = None  # the record when it was sent

    @property
    def state(self) -> str:
        return self.body.vmm_state.state.value

    @property
    def gen(self) -> int:
        return self.body.vmm_state.gen


@attrs.frozen
class Act:
    """The last request: what it was, the record before and after it, and how it ended."""

    verb: str = ""
    propolis_id: Any = None
    before: SledVmmState | None = None
    after: SledVmmState | None = None
    answer: Any = None
    error: type[Exception] | None = None
    resting: str = ""
    published: int = 0
    again: bool = False  # of a target that had been told before  # publications of this VMM within the turn


def _posts(fresh: list[Said]) -> list[Said]:
    return [said for said in fresh if said.attempt is not None]


def _sides(said: Said) -> list[tuple[str, Any]]:
    both = (("in", said.body.migration_in), ("out", said.body.migration_out))
    return [(name, side) for name, side in both if side is not None]


def p01_generations_never_fall(m, fresh):
    for said in _posts(fresh):
        highest = m.memory.get((1, said.life), 0)
        assert said.gen >= highest
        m.memory[1, said.life] = said.gen


def p02_equal_generation_means_identical_state(m, fresh):
    for said in fresh:
        assert m.memory.setdefault((2, said.life, said.gen), said.body.vmm_state) == said.body.vmm_state


def p03_the_first_generation_is_the_registrations(m, fresh):
    for said in fresh:
        given = m.bodies[said.life].vmm_runtime
        if (3, said.life) not in m.memory:
            m.memory[3, said.life] = True
            assert said.body.vmm_state == given
        assert said.gen >= given.gen


def p04_published_states_are_the_eight(m, fresh):
    for said in _posts(fresh):
        assert json.loads(encode(said.body))["vmm_state"]["state"] in THE_EIGHT


def p05_stopped_is_never_published(m, fresh):
    assert all(said.state != "stopped" for said in fresh)


def p06_nothing_new_after_an_acknowledged_end(m, fresh):
    for said in _posts(fresh):
        assert said.gen <= m.ended_at.get(said.life, said.gen)


def p07_failed_is_for_ever(m, fresh):
    for said in fresh:
        failed_gen = m.memory.get((7, said.life))
        assert failed_gen is None or said.gen <= failed_gen
        if said.state == "failed":
            m.memory[7, said.life] = said.gen


def p08_an_ended_migration_side_never_changes(m, fresh):
    for said in fresh:
        for name, side in _sides(said):
            key = (8, said.life, name, side.migration_id)
            ended = m.memory.get(key)
            if ended is not None and side.gen >= ended.gen:
                assert side == ended
            elif side.state.value in DONE:
                m.memory[key] = side


def p09_migration_generations_rise(m, fresh):
    for said in fresh:
        for name, side in _sides(said):
            key = (9, said.life, name, side.migration_id)
            assert m.memory.setdefault((*key, side.gen), side) == side, "equal generation, other contents"
            assert (side.gen == 1) == (side.state.value == "pending")
        for name, side in _sides(said) if said.attempt is not None else ():
            key = (9, said.life, name, side.migration_id)
            assert side.gen >= m.memory.get(key, 0)
            m.memory[key] = side.gen


def p10_a_dead_vmm_has_no_unfinished_migration(m, fresh):
    for said in fresh:
        if said.state in {"failed", "destroyed"}:
            assert all(side.state.value in DONE for _, side in _sides(said))


def p11_nobody_migrates_to_itself(m, fresh):
    for said in fresh:
        ids = [side.migration_id for _, side in _sides(said)]
        assert len(set(ids)) == len(ids)


def p12_migration_in_is_the_registrations(m, fresh):
    for said in fresh:
        side = said.body.migration_in
        assert (side and side.migration_id) == m.bodies[said.life].migration_id


def p13_lives_begin_starting_or_migrating(m, fresh):
    for said in fresh:
        if (13, said.life) not in m.memory:
            m.memory[13, said.life] = True
            assert said.state in {"starting", "migrating"}
    if m.act.verb == "register" and m.act.before is None and m.act.error is not None:
        assert m.act.after is None, "a refused registration leaves nothing"


def p14_register_is_idempotent(m, fresh):
    if m.act.verb == "register" and m.act.before is not None:
        assert m.act.after == m.act.before
        if m.act.error is None:
            assert m.act.answer == m.act.before
        else:
            assert m.act.error is errors.Internal, "another instance's id"


def p15_stopped_before_start_is_destroyed_in_the_answer(m, fresh):
    if m.act.verb == "stopped" and m.act.before is not None and m.act.resting == "starting" and not m.act.error:
        assert m.act.answer.vmm_state.state.value == "destroyed"
        assert m.act.answer.vmm_state.gen == m.act.before.vmm_state.gen + 1
        assert m.act.published or m.busy(m.act.propolis_id), "and Nexus is told"


def p16_stopped_on_stopped_changes_nothing(m, fresh):
    if m.act.verb == "stopped" and m.act.resting in {"stopping", "stopped", "destroyed"} and m.act.before:
        assert m.act.error is None
        assert m.act.answer == m.act.before


def p17_running_is_no_news_or_never_again(m, fresh):
    if m.act.verb != "running" or m.act.before is None:
        return
    if m.act.resting in {"running", "rebooting", "migrating"}:
        assert m.act.error is None
        assert m.act.answer == m.act.before
    elif m.act.resting != "starting":
        assert m.act.error in {errors.InvalidRequest, errors.VmmTerminating}


def p18_reboot_only_if_it_will_run(m, fresh):
    if m.act.verb != "reboot" or m.act.before is None:
        return
    if m.act.error is None:
        assert m.act.resting == "running"
        if m.act.before.vmm_state.state.value == "rebooting":
            assert m.act.answer == m.act.before
        else:
            assert m.act.answer.vmm_state.state.value == "rebooting"
    else:
        assert m.act.after == m.act.before


def p19_migration_target_only_for_a_waiting_target(m, fresh):
    if m.act.verb == "migration_target" and m.act.error is None and m.act.before is not None:
        side = m.act.before.migration_in
        assert side is not None
        if not m.act.again:  # a target that is told again goes on: D44
            assert m.act.before.vmm_state.state.value == m.act.resting == "migrating"
            assert side.state.value == "pending"
        assert m.act.answer == m.act.before, "nothing changes at once"


def p20_delete_twice_answers_null(m, fresh):
    if m.act.verb == "unregister":
        assert m.act.error is None
        assert m.act.after is None
        assert (m.act.answer is None) == (m.act.before is None)


def p21_nothing_is_published_because_of_a_delete(m, fresh):
    if m.act.verb == "unregister":
        assert m.act.published == 0
    assert all(said.life not in m.deleted for said in _posts(fresh))


def p22_no_404_before_the_end_is_acknowledged(m, fresh):
    for row in m.oracle.rows.values():
        here = row.propolis_id in m.driver.sled(row.sled_id).vmms
        if row.gone:
            assert not here or m.oracle.rows[row.propolis_id] is not row
        else:
            assert here, "lost, though nobody acknowledged its end"
    if m.act.error is errors.NoSuchVmm:
        assert m.act.before is None


def p23_one_in_flight_and_retries_carry_the_newest(m, fresh):
    flying = [m.life_of(post) for post in m.driver.flying]
    assert len(set(flying)) == len(flying)
    for said in _posts(fresh):
        # a first attempt may go out while the acknowledgement before it moves an explicit VMM one step on
        assert said.body == said.newest or not said.attempt


def p24_what_nexus_has_is_what_the_sled_has(m, fresh):
    """Whenever nothing is under way; that this is reached is checked by draining."""
    for row in m.oracle.rows.values():
        if row.gone or m.busy(row.propolis_id) or row.life in m.refused_last:
            continue
        assert m.nexus[row.life] == m.driver.vmm(row.propolis_id, on=row.sled_id).record


def p25_a_refusal_ends_one_publication_only(m, fresh):
    for said in _posts(fresh):
        if said.life in m.refused_now:
            m.refused_now.remove(said.life)
            assert said.attempt == 0, "what comes after a refusal is a new publication, not a retry"


def p26_delays_follow_the_policy(m, fresh):
    for said in _posts(fresh):
        failed = m.failed_at.pop(said.life, None)
        if not said.attempt:
            continue
        assert failed is not None
        at_us, attempt, hurried = failed
        assert said.attempt == attempt + 1
        base = min(250_000 * 2**attempt, 180_000_000)
        if not hurried:
            assert 0.5 * base <= said.at_us - at_us <= 1.5 * base


def p28_no_state_call_without_a_registration(m, fresh):
    """A sled cannot see that ids are never reused; but each life begins anew, and none is there without one."""
    if m.act.verb not in {"", "register", "unregister"} and m.act.before is None:
        assert m.act.error is errors.NoSuchVmm
    assert {vmm for sled in m.driver.rack.sleds.values() for vmm in sled.vmms} == {
        row.propolis_id for row in m.oracle.rows.values() if not row.gone
    }


PROPERTIES = {
    int(name[1:3]): function for name, function in list(globals().items()) if name[0] == "p" and name[1:3].isdigit()
}
"""By number. 27 is missing here on purpose: see above."""
