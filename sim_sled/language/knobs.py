"""What `set` can say of a sled: the kinds of its values, and the knobs of the servers beside it.

Read before: language/record.py. Read next: language/actions.py.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

import attrs

from sim_sled.core.crucible.values import RegionState
from sim_sled.language.field_types import Boolean, Integer, OneOf, Parsed, duration
from sim_sled.language.figures import BadValue, clip
from sim_sled.language.record import Located, f
from sim_sled.language.words import DATASET_KINDS

REGION_STATE: Final = OneOf(tuple(each.value for each in RegionState), "E111", "state of a region")


@attrs.frozen
class CrucibleKnobs(Located):
    """How the Crucible agents of a sled work; what is not said stays as it is."""

    born: str | None = f(
        REGION_STATE,
        "What a new region becomes; `requested`: it never becomes anything else.",
        default=None,
        words="-",
    )
    create: int | None = f(duration(), "How long creating a region takes.", default=None, words="-")
    delete: int | None = f(duration(), "... deleting one.", default=None, words="-")
    run: int | None = f(duration(), "... running a snapshot.", default=None, words="-")
    run_fails: bool | None = f(Boolean(), "Running snapshots fail instead of running.", default=None, words="-")
    delete_fails: bool | None = f(Boolean(), "Regions fail instead of going.", default=None, words="-")
    ports: int | None = f(Integer(0, 50), "Ports for regions and running snapshots.", default=None, words="-")

    def knobs(self) -> dict[str, object]:
        """As the agent calls them; only those that are said."""
        named = {
            "born": None if self.born is None else RegionState(self.born),
            "create_us": self.create,
            "delete_us": self.delete,
            "run_us": self.run,
            "run_fails": self.run_fails,
            "delete_fails": self.delete_fails,
            "ports": self.ports,
        }
        return {name: value for name, value in named.items() if value is not None}


@attrs.frozen
class PantryKnobs(Located):
    """How the Crucible pantry of a sled works; what is not said stays as it is."""

    activates: bool | None = f(Boolean(), "False: no volume ever becomes active.", default=None, words="-")
    attach: int | None = f(duration(), "How long attaching a volume takes.", default=None, words="-")
    jobs_ok: bool | None = f(Boolean(), "False: jobs fail.", default=None, words="-")
    job: int | None = f(duration(), "How long a job takes.", default=None, words="-")
    replace: int | None = f(duration(), "... replacing a region of a volume.", default=None, words="-")
    crashed: bool | None = f(
        Boolean(), "It answers nobody, and its volumes and jobs are gone.", default=None, words="-"
    )

    def knobs(self) -> dict[str, object]:
        """As the pantry calls them; only those that are said."""
        named = {
            "activates": self.activates,
            "attach_us": self.attach,
            "jobs_ok": self.jobs_ok,
            "job_us": self.job,
            "replace_us": self.replace,
            "crashed": self.crashed,
        }
        return {name: value for name, value in named.items() if value is not None}


NUMBER: Final = Integer(1, 64)
SLOT: Final = OneOf(("a", "b"), "E111", "slot")


def _parse_override(word: str) -> str:
    if word == "none":
        return word
    try:
        return str(UUID(word))
    except ValueError:
        raise BadValue("E111", f"'{clip(word)}' is no UUID, nor none") from None


def _parse_region(word: str) -> str:
    if re.fullmatch("[1-9][0-9]{0,5}", word):
        return word
    try:
        return str(UUID(word))
    except ValueError:
        raise BadValue("E111", f"'{clip(word)}' is neither the number of a region nor its UUID") from None


OVERRIDE: Final = Parsed("UUID or `none`", _parse_override)
REGION: Final = Parsed("number or UUID", _parse_region, plain_number=True)
DATASET_KIND: Final = OneOf(DATASET_KINDS, "E111", "kind of dataset")
