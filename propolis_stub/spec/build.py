"""What a host can make of a specification: the one rule, for the stub and for a sled with or without `--propolis`.

Two kinds of no: a specification that is none (`read.check`, 400 before there is a VM), and one whose objects cannot
be created (500, and the VM is Failed: PR 3.1, 4.2). To a sled both are the same: the VMM is `failed` (SA 2.12).

Read before: spec/read.py, spec/volumes.py. Read next: server/instance.py.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from propolis_stub.spec import types as t
from propolis_stub.spec import versions as v
from propolis_stub.spec import volumes
from propolis_stub.spec.read import Spec, SpecRefused, check, from_sled

CPUS_MAX: Final = 254
"""vCPUs of one VM (PR 4.2: too many surface as a 500). A VM without any cannot be made either."""


def cpus_fault(cpus: int) -> str:
    """Why a VM cannot have so many vCPUs; empty: it can."""
    return "" if 1 <= cpus <= CPUS_MAX else f"{cpus} vCPUs: a VM has 1 to {CPUS_MAX}"


def unbuildable(spec: Spec) -> str:
    """Why the objects of a checked specification cannot be created; empty: they can."""
    why = cpus_fault(spec.board.cpus)
    if why:
        return why
    for key, component in spec.components.items():
        if isinstance(component, t.CrucibleStorageBackend):
            why = _not_a_volume(component.request_json)
        elif isinstance(component, t.BlobStorageBackend):
            why = _not_base64(component.base64)
        if why:
            return f"component {key}: {why}"
    return ""


def fault_of(told: v.SledSpec) -> str:
    """Why a sled cannot make this VM, for whatever reason; empty: it can."""
    try:
        spec = from_sled(told)
        check(spec)
    except SpecRefused as refused:
        return str(refused)
    return unbuildable(spec)


def _not_a_volume(request_json: str) -> str:
    try:
        volumes.read(request_json)
    except ValueError as problem:
        return str(problem)
    return ""


def _not_base64(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "invalid base64"
    # Python takes padding and left-over bits that Rust's standard engine refuses
    return "" if base64.b64encode(data).decode() == text else "invalid base64"
