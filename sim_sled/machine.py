"""Where we run: what the machine lacks, told in a sentence, and whether it is an Antithesis environment."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sim_sled.antithesis import Assertions

NO_IPV6: Final = (
    "this machine has no IPv6: [::1] cannot be bound, and a sled's address has to be IPv6 (NX 3.3). "
    "Switch it on (containers: --sysctl net.ipv6.conf.all.disable_ipv6=0)"
)
PLAYER_ENDED: Final = (
    "a process that plays runs was ended: by somebody, or by the system, as it does when memory runs out; "
    "--jobs 1 needs least of it"
)
"""Its pool only says that it is broken."""
_MISSING: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def has_ipv6() -> bool:
    """Whether a loopback address of IPv6 can be bound."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return error.errno not in _MISSING
    return True


def cannot_bind(error: OSError) -> str:
    """The sentence for a listener that could not be made."""
    if error.errno in _MISSING and not has_ipv6():
        return f"cannot bind: {NO_IPV6}"
    return f"cannot bind: {error.strerror or error}"


@contextmanager
def binding(option: str) -> Iterator[None]:
    """What cannot be bound in here is told with the option that says where: OSError, its `strerror` the sentence."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{cannot_bind(error)}; {option} says where") from None


def assertions() -> Assertions | None:
    """What an Antithesis environment is to be told by this process; None anywhere else. Raises `CannotWrite`."""
    folder = os.environ.get("ANTITHESIS_OUTPUT_DIR")
    if not folder:
        return None
    from sim_sled.antithesis import Assertions  # noqa: PLC0415 -- nobody else pays for it

    return Assertions(Path(folder) / "sdk.jsonl")
