"""Reports that Nexus did not take, as rules: storms of errors, an unreachable Nexus, reports lost for good (LG 5 #5).

Read before: incident/sheet.py, incident/life.py. Read next: incident/departures.py.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

import attrs

from sim_sled.incident.facts import Fact, NotTaken, Published, Received
from sim_sled.incident.life import SECOND_US
from sim_sled.incident.sheet import Sheet, at, duration, host_named
from sim_sled.incident.timeline import Incident

_LOST_MAX: Final = 3
"""Reports refused for good that are each a rule; more of them are a time in which all are."""


@attrs.define
class Reports:
    """Writes the rules of reports on the sheet of an incident."""

    sheet: Sheet

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    def all(self) -> None:
        """Runs of reports that were not taken, over all VMMs (LG 5 #5)."""
        attempts: list[tuple[int, str, NotTaken | None]] = []
        for vmm in self.incident.vmms.values():
            told: list[Fact] = [*vmm.published, *vmm.not_taken, *vmm.observed, *vmm.ended]
            told += [] if vmm.published else [each for each in vmm.received if each.pushed]
            words = sorted(told, key=lambda each: each.at_us)
            for word, following in zip_longest(words, words[1:]):
                if isinstance(word, NotTaken):
                    attempts.append((word.at_us, word.host, word))
                elif isinstance(word, Received):
                    attempts.append((word.at_us, word.host, None))
                elif isinstance(word, Published) and following is not None and not isinstance(following, NotTaken):
                    # accepted, as far as anybody can know: no failure followed (LG 0 #1)
                    attempts.append((word.at_us, word.host, None))
        attempts.sort(key=lambda each: each[0])
        count = 0
        for final in (False, True):
            meant = [a for a in attempts if a[2] is None or a[2].final is final]
            alone = _alone(meant) & self.sheet.draft.hosts.keys()
            parts = {host: [a for a in meant if a[1] == host] for host in sorted(alone)}
            parts[""] = [a for a in meant if a[1] not in alone]
            for host, part in parts.items():
                for run in _runs(part):
                    if final and len(run.bad) <= _LOST_MAX and all(self._lost(bad) for bad in run.bad):
                        continue
                    count += 1
                    self._storm(run, count, host, final=final)

    def _lost(self, bad: NotTaken) -> bool:
        """A report that Nexus refused for good, as a rule of its own: the next one is another moment in a replay.
        Whether the log has it.
        """
        vmm = self.incident.vmms[bad.vmm]
        instance = self.incident.instances.get(vmm.instance)
        told = next((each for each in reversed(vmm.published) if each.at_us <= bad.at_us), None)
        if told is None or instance is None:
            return False
        before = {
            (other.id, each.gen)
            for other in instance.vmms
            for each in other.published
            if each.state == told.state and each.at_us < told.at_us and each.gen != told.gen
        }
        self.sheet.rule(
            f"nexus-answers-{bad.status}",
            host_named(instance.shown),
            f"{{publish: {told.state}}}",
            f"{{nexus_replies: {{status: {bad.status}, lasts: 50ms}}}}",
            why=[at(told.where, f"{told.state} is reported"), at(bad.where, f"not taken: {bad.status}, for good")],
            times=1,
            skip=len(before),
        )
        self._not_acked()
        return True

    def _not_acked(self) -> None:
        if "final_state_acked" in self.sheet.draft.always:
            self.sheet.draft.always.remove("final_state_acked")
            self.sheet.draft.notes.append("A report was lost for good (4xx): 'final_state_acked' is not demanded.")

    def _storm(self, run: _Run, number: int, host: str, *, final: bool) -> None:
        statuses = [bad.status for bad in run.bad]
        status = max(set(statuses), key=statuses.count)
        first, last = run.bad[0], run.bad[-1]
        begin = (run.good_before + first.at_us) // 2 if run.good_before is not None else first.at_us - SECOND_US // 2
        end = (last.at_us + run.good_after) // 2 if run.good_after is not None else last.at_us + SECOND_US
        begin = max(begin, first.at_us - 30 * SECOND_US)
        name = "nexus-answers" if number == 1 else f"nexus-answers-{number}"
        lasts = duration(end - begin)
        if status is None:
            action = f"{{partition: {{from: nexus, direction: out, lasts: {lasts}}}}}"
            name = name.replace("answers", "out-of-reach")
        else:
            action = f"{{nexus_replies: {{status: {status}, lasts: {lasts}}}}}"
            name = name.replace("answers", f"answers-{status}")
        good = "nothing before" if run.good_before is None else f"last good {duration(self.sheet.t(run.good_before))}"
        better = "nothing after" if run.good_after is None else f"first good {duration(self.sheet.t(run.good_after))}"
        began, ended = duration(self.sheet.t(first.at_us)), duration(self.sheet.t(last.at_us))
        doubt = [f"it began between {good} and {began}, and ended between {ended} and {better}; the middle is taken"]
        if host:
            doubt.append("meanwhile Nexus took what other sleds reported: it is this one's alone")
        elif first.host in self.incident.sleds and len({bad.host for bad in run.bad}) == 1 < len(self.incident.sleds):
            doubt.append("only one sled shows it")
        why = [at(first.where, f"not taken: {first.status or 'no answer'}"), at(last.where, "the last one")]
        why.append(f"{len(run.bad)} reports in all")
        whom = f"{{sled: {self.sheet.draft.hosts[host]}}}" if host else ""
        self.sheet.rule(name, whom, self.sheet.when(begin), action, why=why, doubt=doubt)
        if final:
            self._not_acked()


@attrs.define
class _Run:
    """Reports in a row that were not taken, and the good ones around them."""

    bad: list[NotTaken]
    good_before: int | None
    good_after: int | None = None


def _alone(attempts: list[tuple[int, str, NotTaken | None]]) -> set[str]:
    """Sleds whose reports were not taken while those of others were, and only those: the rest is all of Nexus."""
    found = set()
    for host in {host for _, host, bad in attempts if bad is not None}:
        times = [at_us for at_us, whose, bad in attempts if whose == host and bad is not None]
        others = [bad for at_us, whose, bad in attempts if whose != host and times[0] <= at_us <= times[-1]]
        if others and all(bad is None for bad in others):
            found.add(host)
    return found


def _runs(attempts: list[tuple[int, str, NotTaken | None]]) -> list[_Run]:
    """Runs over all sleds. One report that is taken meanwhile on a sled where others fail does not end a run if more
    failures follow within the longest pause of the agent (3 min): a retry is not a new storm.
    """
    runs: list[_Run] = []
    good: int | None = None
    for at_us, _, bad in attempts:
        if bad is None:
            if runs and runs[-1].good_after is None:
                runs[-1].good_after = at_us
            good = at_us
        elif runs and runs[-1].good_after is None:
            runs[-1].bad.append(bad)
        elif runs and at_us - runs[-1].bad[-1].at_us < SECOND_US:
            runs[-1].good_after = None
            runs[-1].bad.append(bad)
        else:
            runs.append(_Run([bad], good))
    return runs
