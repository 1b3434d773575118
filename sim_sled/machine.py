"""What the machine lacks, told in a sentence."""

from __future__ import annotations

import errno
import socket
from typing import Final

NO_IPV6: Final = (
    "this machine has no IPv6: [::1] cannot be bound, and a sled's address has to be IPv6 (NX 3.3). "
    "Switch it on (containers: --sysctl net.ipv6.conf.all.disable_ipv6=0)"
)
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
