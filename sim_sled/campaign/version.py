"""Which code this is: equal results come from equal code only.

Read next: campaign/cluster.py.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sim_sled.play import library


@cache
def code_version() -> str:
    """The version of this package, with a digest of its code and of its library of scenarios."""
    try:
        named = version("sim-sled")
    except PackageNotFoundError:  # code without an installation
        named = "0"
    packages = Path(__file__).resolve().parents[2]
    ours = ("nexus_client", "propolis_stub", "sim_sled")
    files = [path for name in ours for path in (packages / name).rglob("*.py")]
    code = blake2b(digest_size=4)
    for named_as, path in sorted((path.relative_to(packages).as_posix(), path) for path in files):
        code.update(named_as.encode() + b"\0" + path.read_bytes() + b"\0")
    for path in sorted(library.folder().glob("*.yaml")):  # a swarm takes its faults from there
        code.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{named}+{code.hexdigest()}"
