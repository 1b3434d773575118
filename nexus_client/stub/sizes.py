"""What an instance may be called and how large it may be (NX 4.2): judged before anything is written.

Read before: stub/rules.py. Read next: stub/nexus.py.
"""

from __future__ import annotations

import re
from typing import Final

from nexus_client.stub.refusal import invalid_request, invalid_value
from nexus_client.stub.rules import Rules

GIB: Final = 2**30
_UUID: Final = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
NAME_PATTERN: Final = f"^(?!{_UUID}$)[a-z]([a-zA-Z0-9-]*[a-zA-Z0-9])?$"
_NAME: Final = re.compile(NAME_PATTERN)
NAME_MAX: Final = 63
_LABEL: Final = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
HOSTNAME_MAX: Final = 253


def check_sizes(rules: Rules, ncpus: int, memory: int) -> None:
    """`memory` in bytes: whole GiB. No vCPU at all passes, as in the original. Raises `Refused` (400)."""
    if ncpus > rules.vcpus_max:
        raise invalid_request(f"cannot have more than {rules.vcpus_max} vCPUs per instance")
    if ncpus < 0:
        raise invalid_request("the number of vCPUs is negative")
    if memory < GIB:
        raise invalid_value("size", "memory must be at least 1 GiB")
    if memory % GIB:
        raise invalid_value("size", "memory must be divisible by 1 GiB")
    if memory > rules.memory_gib_max * GIB:
        raise invalid_value("size", f"memory must be less than or equal to {rules.memory_gib_max} GiB")


def check_name(name: str) -> None:
    """As the public API's names: it stands in paths, where it must not be taken for an id. Raises `Refused` (400)."""
    if re.fullmatch(_UUID, name):
        raise invalid_request("name cannot be a UUID to avoid ambiguity with IDs")
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise invalid_request(
            f"a name begins with a lower case letter, has letters, digits and '-', ends with no '-', and is at most "
            f"{NAME_MAX} long: not {name[:80]!r}"
        )


def check_hostname(hostname: str) -> None:
    """Labels of letters, digits and hyphens, as RFC 1035 has them. Raises `Refused` (400)."""
    if len(hostname) > HOSTNAME_MAX:
        raise invalid_request(f"Max hostname length is {HOSTNAME_MAX}")
    if not _HOSTNAME.fullmatch(hostname):
        raise invalid_request("Hostnames must comply with RFC 1035")
