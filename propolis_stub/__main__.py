"""The command `propolis-stub`, also as `python -m propolis_stub`. Signals are answered from the first moment on."""

from __future__ import annotations

from nexus_client.dropshot import ending


def main() -> None:
    """The entry point."""
    ending.begin("propolis-stub")
    from nexus_client.dropshot import collector  # noqa: PLC0415 -- as below

    collector.begin()
    from propolis_stub.commands import app  # noqa: PLC0415 -- typer takes its time

    ending.imported()
    app(prog_name="propolis-stub")


if __name__ == "__main__":
    main()
