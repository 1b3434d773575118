"""The command `propolis-stub`, also as `python -m propolis_stub`. Signals are answered from the first moment on."""

from __future__ import annotations

import sys
from typing import Final

from nexus_client.dropshot import ending

NAME: Final = "propolis-stub"


def main() -> None:
    """The entry point."""
    ending.begin(NAME)
    from nexus_client.dropshot import collector  # noqa: PLC0415 -- as below

    collector.begin()
    from nexus_client.dropshot import streams  # noqa: PLC0415 -- typer takes its time
    from propolis_stub.commands import app  # noqa: PLC0415 -- same

    ending.imported()
    streams.take(NAME)
    sys.exit(streams.code_of(NAME, lambda: app(prog_name=NAME)))


if __name__ == "__main__":
    main()
