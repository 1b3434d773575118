"""What the sled refuses. Core errors know no HTTP; `http/app.py` has the one table of status codes.

Read next: core/contract.py, http/answers.py.
"""

from __future__ import annotations

from uuid import UUID


class SledError(Exception):
    """Base of every refusal: raised before anything was changed (house.md 3.13)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NoSuchVmm(SledError):
    """404 `NO_SUCH_INSTANCE`: the one answer that tells Nexus a VMM is lost (SA 1.3)."""

    def __init__(self, propolis_id: UUID) -> None:
        super().__init__(f"no VMM {propolis_id} on this sled")
        self.propolis_id = propolis_id


class VmmTerminating(SledError):
    """410 `NO_SUCH_INSTANCE`, "Instance is terminating" (SA 2.12)."""


class InvalidRequest(SledError):
    """400 `InvalidRequest`."""


class BadRequest(SledError):
    """400 without a code."""


class Conflict(SledError):
    """409 `Conflict`."""


class PropolisRefused(SledError):
    """403 without a code: the Propolis queue denied what the sled's table let pass (PR 3.9)."""


class ChannelFull(SledError):
    """503 `INSTANCE_CHANNEL_FULL` (SA 2.12)."""


class NexusUnreachable(SledError):
    """503: a poke was carried out, but Nexus did not acknowledge in time (`docs/fidelity.md`, D18)."""


class Internal(SledError):
    """500 `Internal`."""


class PropolisSilent(Internal):
    """... because the VMM's Propolis is gone or hangs. Only who misbehaves on purpose makes it so."""


class Missing(SledError):
    """404 without a code: what the path names is not there; the text is for the log."""


class NoNestedDataset(SledError):
    """404 with the code by which Nexus knows that a support bundle is gone (SR 4.1)."""


class ConfigGeneration(SledError):
    """409 `CONFIG_GENERATION`: this ends a round of artifact replication (SR 4.2)."""


class OtherGeneration(SledError):
    """409 without a code: the request speaks of another generation than the one in effect."""


class NotYetThere(SledError):
    """503 whose code is the reason: Nexus asks again for ever (SR 2, 3.4)."""


class NotSupported(SledError):
    """400 whose code and text are the reason (SR 3.4)."""


class Unavailable(SledError):
    """503 without a code: not now; the text is for the log. Nexus asks again for ever (SR 2)."""


class SledGone(SledError):
    """503 without a code: the sled has left the rack while something was on its way to it."""

    def __init__(self, sled_id: UUID) -> None:
        super().__init__(f"sled {sled_id} has left")


class Gone(SledError):
    """410 without a code: another upstairs has taken a volume over (SR 5.2)."""


class DnsGeneration(SledError):
    """409 `BadUpdateGeneration` (SR 5.3)."""


class DnsBusy(SledError):
    """409 `UpdateInProgress` (SR 5.3)."""


class NotImplementedHere(SledError):
    """405 without `Allow`: an operation that this sled does not offer (SA 1.3)."""


class TooMany(SledError):
    """503 without a code: a limit of this sled is reached (house.md 3.15)."""


class Injected(SledError):
    """A rule of a scenario answers instead of the sled: with this status, code and headers."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ConnectionDropped(Exception):
    """A rule of a scenario closes the connection without an answer."""


class AgentAborts(SledError, ConnectionDropped):
    """The real sled agent aborts here, with all that it runs: nobody is answered (SA 2.12; the rack plays it)."""
