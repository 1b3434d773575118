"""The command `sim-sled`, also as `python -m sim_sled`. Ctrl-C is answered from the first moment on."""

from __future__ import annotations

from nexus_client.dropshot import ending


def main() -> None:
    """The entry point."""
    ending.begin("sim-sled")
    from nexus_client.dropshot import collector  # noqa: PLC0415 -- as below

    collector.begin()  # before the imports: a hundred thousand objects come, and none of them goes
    from sim_sled.cli import surface  # noqa: PLC0415 -- this is what takes its time
    from sim_sled.cli.main import app  # noqa: PLC0415 -- same

    ending.imported()
    surface.run(app)


if __name__ == "__main__":
    main()
