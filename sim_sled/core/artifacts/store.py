"""Which artifacts a sled should have and which it has (SR 4.2). The bytes are the shell's.

Read before: core/estate.py.
Read next: companions/depot.py, core/facts.py, core/omicron_config/configure.py, http/artifacts.py.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from sim_sled.core.errors import BadRequest, ConfigGeneration, Missing, OtherGeneration, TooMany
from sim_sled.core.estate import Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger, drop_files
from sim_sled.core.omicron_config.reconcile import HEADER_BYTES, Image

COPIES: Final = 2
"""One per M.2 disk."""

ARTIFACTS_MAX: Final = 10_000
"""In one configuration: a release has some hundred; the body limit of 1 MiB allows 15,000."""


def key_of(sha256: str) -> str:
    """Of the bytes of an artifact in the shell's storage."""
    return f"artifacts/{sha256}"


@attrs.frozen
class ArtifactConfig:
    generation: int
    artifacts: frozenset[str]


class Artifacts(Area):
    """The artifact store of one sled. `copies`: on how many M.2 disks each artifact is that is held at all.

    `disks`: how many M.2 disks take writes (SR 8: 0, 1 or 2).
    """

    kept_as = "artifacts"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.config: ArtifactConfig | None = None
        self.copies: dict[str, int] = {}
        self.disks = COPIES

    def get_config(self) -> ArtifactConfig:
        if self.config is None:
            raise Missing("no artifact configuration present")
        return self.config

    def put_config(self, new: ArtifactConfig) -> None:
        """Take a configuration; files that it does not list are removed. Raises `ConfigGeneration`."""
        old = self.config
        if old is not None and new.generation <= old.generation:
            if new == old:
                self.changed()  # see Ledger.is_new
                return
            raise ConfigGeneration(
                f"Attempt to modify config to generation {new.generation} while at {old.generation}"
            )
        if len(new.artifacts) > ARTIFACTS_MAX:
            raise TooMany(f"more than {ARTIFACTS_MAX} artifacts")
        if self.estate.of(Ledger).strict_artifacts:
            self._check_in_use(new)
        self.config = new
        ledger = self.estate.of(Ledger)
        for sha256 in sorted(self.copies.keys() - new.artifacts):
            del self.copies[sha256]
            if ledger.images.pop(sha256, None) is not None:
                ledger.changed()
            drop_files(self.estate, key_of(sha256))
        self.changed()

    def _check_in_use(self, new: ArtifactConfig) -> None:
        ledgered = self.estate.of(Ledger).ledgered
        lost = sorted((ledgered.artifacts if ledgered is not None else frozenset()) - new.artifacts)
        if lost:
            raise BadRequest(
                "New config is invalid per current sled config: Artifacts in use by ledgered sled config are not "
                f"present in new artifact config: {{{', '.join(lost)}}}"
            )

    def list(self) -> tuple[int, dict[str, int]]:
        """Generation, and the number of copies of each artifact that is there."""
        config = self._present()
        return config.generation, {key: self.copies[key] for key in sorted(self.copies) if self.copies[key] > 0}

    def check_put(self, sha256: str, generation: int) -> None:
        """Whether an artifact may be written now: before its bytes are looked at. Raises `BadRequest`,
        `OtherGeneration`, `TooMany` (503) for a sled without M.2 disks.
        """
        config = self._present()
        if generation != config.generation:
            raise OtherGeneration(f"Attempt to put object with generation {generation} while at {config.generation}")
        if sha256 not in config.artifacts:
            raise BadRequest(f"Attempt to put artifact {sha256} not in config generation {config.generation}")
        if self.disks == 0:
            raise TooMany("no M.2 dataset to write to")

    def stored(self, sha256: str, size: int, head: bytes) -> int:
        """The bytes of `sha256` are in the shell's storage; `head` is their beginning. Returns the number of copies.

        A configuration may have come in between: what it does not list is dropped again.
        """
        if self.config is None or sha256 not in self.config.artifacts:
            drop_files(self.estate, key_of(sha256))
            return self.disks
        self.copies[sha256] = self.disks
        ledger = self.estate.of(Ledger)
        image = image_of(sha256, size, head)
        if ledger.images.get(sha256) != image:
            ledger.images[sha256] = image
            ledger.changed()
            if ledger.ledgered is not None and sha256 in ledger.ledgered.artifacts:
                ledger.world_changed()
        self.changed()
        return self.disks

    def has(self, sha256: str) -> bool:
        """Whether a depot may serve it."""
        return self.copies.get(sha256, 0) > 0

    def complete(self) -> frozenset[str]:
        """All that are there."""
        return frozenset(key for key, copies in self.copies.items() if copies > 0)

    def _present(self) -> ArtifactConfig:
        if self.config is None:
            raise BadRequest("No artifact configuration present")
        return self.config

    def dump(self) -> Any:
        config = None
        if self.config is not None:
            config = [self.config.generation, sorted(self.config.artifacts)]
        return {"config": config, "copies": self.copies}

    def load(self, kept: Any) -> None:
        if kept["config"] is not None:
            generation, artifacts = kept["config"]
            self.config = ArtifactConfig(generation, frozenset(artifacts))
        self.copies = dict(kept["copies"])


_MAGIC: Final = 0x1DEB0075
_VERSION: Final = 2
_HEAD_USED: Final = 328
"""Bytes of a header that mean something: the two names end here."""


def image_of(sha256: str, size: int, head: bytes) -> Image:
    """What a host phase 2 slot shows when this artifact is written to it (SR 3.8): from the image's header if it has
    one, else with its hash for a name.
    """
    plain = Image(sha256, size, bytes.fromhex(sha256), sha256, data_size=size)
    if len(head) < _HEAD_USED or size < HEADER_BYTES:
        return plain
    if int.from_bytes(head[:4], "little") != _MAGIC or int.from_bytes(head[4:8], "little") != _VERSION:
        return plain
    flags, data_size, image_size, target_size = (
        int.from_bytes(head[at : at + 8], "little") for at in range(8, 40, 8)
    )
    if image_size > target_size or data_size != size - HEADER_BYTES:
        return plain
    name = head[200:328].split(b"\0", 1)[0].decode(errors="replace")
    return Image(sha256, size, head[40:72], name, flags, data_size, target_size)
