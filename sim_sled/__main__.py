"""The command `sim-sled`, also as `python -m sim_sled`. Ctrl-C is answered from the first moment on."""

from __future__ import annotations

import mimetypes
import os
import signal


def _too_early(_signal: int, _frame: object) -> None:
    # a KeyboardInterrupt would come out of the middle of some import, as a traceback
    os.write(2, b"\nsim-sled: interrupted\n")
    os._exit(130)


def main() -> None:
    """The entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _too_early)
    from nexus_client.dropshot import collector  # noqa: PLC0415 -- as below

    mimetypes.init([])  # else aiohttp reads the system's 70 kB of file endings, of which nothing here depends
    collector.begin()  # before the imports: a hundred thousand objects come, and none of them goes
    from sim_sled.cli import surface  # noqa: PLC0415 -- this is what takes its time
    from sim_sled.cli.main import app  # noqa: PLC0415 -- same

    surface.run(app, ctrl_c=signal.getsignal(signal.SIGINT) is _too_early)


if __name__ == "__main__":
    main()
