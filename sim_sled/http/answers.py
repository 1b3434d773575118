"""The one table from the core's refusals to HTTP (SA 1.3).

Read before: core/errors.py, nexus_client/dropshot/answers.py. Read next: http/routes.py.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from nexus_client.dropshot.answers import NOT_FOUND, Refused
from sim_sled.core import errors

NO_SUCH_INSTANCE: Final = "NO_SUCH_INSTANCE"
NOT_IMPLEMENTED: Final = "Method not implemented in sled-agent-sim"


class _Row(Struct, frozen=True):
    """How one class of `SledError` is told. `message` None: its own text. `coded`: that text is the code, too."""

    status: int
    error_code: str | None
    message: str | None
    coded: bool = False


STATUS: Final[dict[type[errors.SledError], _Row]] = {
    errors.NoSuchVmm: _Row(404, NO_SUCH_INSTANCE, NOT_FOUND),
    errors.VmmTerminating: _Row(410, NO_SUCH_INSTANCE, "Instance is terminating"),
    errors.InvalidRequest: _Row(400, "InvalidRequest", None),
    errors.BadRequest: _Row(400, None, None),
    errors.Conflict: _Row(409, "Conflict", None),
    errors.PropolisRefused: _Row(403, None, None),
    errors.ChannelFull: _Row(503, "INSTANCE_CHANNEL_FULL", "Service Unavailable"),
    errors.NexusUnreachable: _Row(503, None, "Service Unavailable"),
    errors.TooMany: _Row(503, None, "Service Unavailable"),
    errors.Internal: _Row(500, "Internal", "Internal Server Error"),
    errors.Missing: _Row(404, None, NOT_FOUND),
    errors.NoNestedDataset: _Row(404, "Nested dataset not found", NOT_FOUND),
    errors.ConfigGeneration: _Row(409, "CONFIG_GENERATION", None),
    errors.OtherGeneration: _Row(409, None, None),
    errors.NotYetThere: _Row(503, None, "Service Unavailable", coded=True),
    errors.NotSupported: _Row(400, None, None, coded=True),
    errors.Unavailable: _Row(503, None, "Service Unavailable"),
    errors.SledGone: _Row(503, None, "Service Unavailable"),
    errors.Gone: _Row(410, None, None),
    errors.DnsGeneration: _Row(409, "BadUpdateGeneration", None),
    errors.DnsBusy: _Row(409, "UpdateInProgress", None),
    errors.NotImplementedHere: _Row(405, None, NOT_IMPLEMENTED),
}
"""Every class of refusal the core has. A message of None is the refusal's own text; the others keep the detail for
the log, as the original does."""


def refusal(error: errors.SledError) -> Refused:
    """The answer to a refusal of the core, or to a rule that refuses in its place."""
    if isinstance(error, errors.Injected):
        return Refused(error.status, error.message, error.code, headers=error.headers)
    for kind in type(error).__mro__:
        row = STATUS.get(kind)
        if row is not None:
            code = error.message if row.coded else row.error_code
            return Refused(row.status, error.message if row.message is None else row.message, code)
    return Refused(500, "Internal Server Error", "Internal")
