"""The command `sim-sled`, also as `python -m sim_sled`. Ctrl-C is answered from the first moment on."""

from __future__ import annotations

import mimetypes
from functools import partial

from nexus_client.dropshot import ending


def main() -> None:
    """The entry point."""
    ending.begin("sim-sled")
    from nexus_client.dropshot import collector  # noqa: PLC0415 -- as below

    mimetypes.init([])  # else aiohttp reads the system's 70 kB of file endings, of which nothing here depends
    collector.begin()  # before the imports: a hundred thousand objects come, and none of them goes
    from sim_sled.cli import surface  # noqa: PLC0415 -- this is what takes its time
    from sim_sled.cli.main import app  # noqa: PLC0415 -- same

    surface.run(partial(app, prog_name="sim-sled"), ctrl_c=ending.hears_ctrl_c())


if __name__ == "__main__":
    main()
