"""`--pace PRESET`, the same in all programs: the names are those of `latency:`. Read before: presets.py."""

from __future__ import annotations

from typing import Annotated

import typer


def _checked(given: str | None) -> str | None:
    from propolis_stub.presets import NoPreset, preset_named  # noqa: PLC0415 -- `--help` stays quick

    try:
        return None if given is None else preset_named(given)
    except NoPreset as error:
        raise typer.BadParameter(str(error)) from None


def _presets(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from propolis_stub.presets import PRESETS  # noqa: PLC0415 -- same

    return [name for name in PRESETS if name.startswith(incomplete)]


Pace = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET",
        callback=_checked,
        autocompletion=_presets,
        help="how long things take: instant, stub, fast, dev, sim, console, rack; not where a scenario has `latency`",
    ),
]
