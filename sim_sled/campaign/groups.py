"""What a campaign found, one folder per reason: the smallest scenario that fails so, its run, the command.

    DIR/expect-boots/minimal.yaml    the reduced scenario with its seed (without `--shrink`: the whole one)
    DIR/expect-boots/minimal.trace   its run, for `replay`
    DIR/expect-boots/minimal.html    its run, as a page for a browser
    DIR/expect-boots/README.md       the reason, all that is known of the group, commands to paste

Read before: campaign/explore.py, play/shrink.py. Read next: cli/exploring.py.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from nexus_client.dropshot.streams import CannotWrite
from nexus_client.dropshot.text import counted, shown
from sim_sled.campaign.explore import Group
from sim_sled.campaign.job import NOTHING, Job
from sim_sled.files import write_text
from sim_sled.language.printing import print_scenario
from sim_sled.page.files import in_one_file
from sim_sled.page.recording import TooManyEvents, recording_of
from sim_sled.play.run import play
from sim_sled.play.shrink import Shrunk, shrink

GROUPS_MAX: Final = 100
"""Folders of one campaign: whoever has more reasons has one more reason to begin with the first."""
SHRINK_RUNS_MAX: Final = 500
"""Runs of one group's reduction; `sim-sled shrink` goes on from there."""
_SEEDS_SHOWN: Final = 10


@attrs.frozen
class Kept:
    """A group that has its folder."""

    group: Group
    folder: Path
    small: Shrunk | None


def slug_of(what: str) -> str:
    """The name of a group's folder."""
    return re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")[:60] or "group"


def can_shrink(group: Group) -> bool:
    """A crash of ours is no failure of a run, so there is nothing that `shrink` could hold on to; nor is a run in
    which nobody got an instance.
    """
    return not group.what.startswith("crash/") and group.what != NOTHING


def keep_group(
    job: Job,
    group: Group,
    into: Path,
    *,
    jobs: int = 1,
    shrinks: bool = True,
    told: Callable[[int], None] | None = None,
) -> Kept:
    """Shrinks a group's first run and writes its folder. Raises `CannotWrite`."""
    seed = group.seeds[0]
    task = job.task(seed)
    small = None
    if shrinks and can_shrink(group):
        small = shrink(
            task,
            group.what,
            jobs=jobs,
            runs_max=SHRINK_RUNS_MAX,
            told=None if told is None else lambda runs, _: told(runs),
        )
    if small is not None:
        seed = small.seed  # a smaller one may need another
    scenario = attrs.evolve(task.scenario if small is None else small.scenario, seed=seed)
    folder = _folder(into, slug_of(group.what))
    told_by = f"{shown(group.text)}\nFound by a campaign over {Path(job.shown).name}, seed {group.seeds[0]}."
    write_text(folder / "minimal.yaml", print_scenario(scenario, told_by))
    if not group.what.startswith("crash/"):
        result = play(scenario, seed, attrs.evolve(job.how, keep=True))
        write_text(folder / "minimal.trace", result.trace().text())
        with suppress(TooManyEvents):  # what no browser would show has its trace
            write_text(folder / "minimal.html", in_one_file(recording_of(result)))
    write_text(folder / "README.md", _readme(_seen_from(job, folder), group, small))
    return Kept(group, folder, small)


def _seen_from(job: Job, folder: Path) -> Job:
    """The job as somebody in this folder has to call its file; the library's names are good anywhere."""
    path = Path(job.shown)
    return attrs.evolve(job, shown=os.path.relpath(path, folder)) if path.exists() else job


def _folder(into: Path, name: str) -> Path:
    """A new one: what an earlier campaign found is not overwritten."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        for n in range(1, GROUPS_MAX + 1):
            folder = into / (name if n == 1 else f"{name}-{n}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise CannotWrite(f"cannot write {into}: {error.strerror}") from None
    raise CannotWrite(f"cannot write {into}: there are {GROUPS_MAX} folders {name} already")


def flags_of(job: Job) -> str:
    """The options that a single run needs to go as it did in the campaign."""
    how = job.how
    flag = f" --variant {how.variant}" if how.variant else ""
    flag += f" --sled-variant {how.sled_variant}" if how.sled_variant else ""
    return flag + (f" --hazard {job.hazard}" if job.hazard else "")


def again(job: Job, seed: int, command: str = "run") -> str:
    """The command that plays one seed of a campaign again, or does something else with it."""
    swarm = " --swarm" if job.swarm else ""
    return f"sim-sled {command} {shlex.quote(job.shown)} --seed {seed}{swarm}{flags_of(job)}"


def _readme(job: Job, group: Group, small: Shrunk | None) -> str:
    flags = flags_of(attrs.evolve(job, hazard=None))  # a hazard stands in the file
    further = f"--seed {group.seeds[0] if small is None else small.seed}{flags} --what {shlex.quote(group.what)}"
    goes_on = f"sim-sled shrink minimal.yaml {further} --out smaller.yaml    # further\n" if can_shrink(group) else ""
    seeds = ", ".join(str(seed) for seed in group.seeds[:_SEEDS_SHOWN])
    size = "the whole scenario"
    if small is not None:
        s = small.scenario
        size = (
            f"{counted(s.fleet.sleds, 'sled')}, {counted(small.vmms, 'VMM')}, {counted(len(s.rules), 'rule')}, "
            f"after {counted(small.runs, 'run')}"
        )
    return f"""# {group.what}

{shown(group.text)}

{counted(group.count, "run")} of `{Path(job.shown).name}` failed so; the first seeds: {seeds}.
`minimal.yaml`: {size}.

```sh
sim-sled run minimal.yaml{flags}        # fails so
sim-sled replay minimal.trace           # the same run, compared
{goes_on}{again(job, group.seeds[0])}    # as the campaign played it
```
"""
