"""`sim-sled handoff`: the hand-off of a command line, printed or sent once (SR 6).

Read before: cli/rss.py, cli/sled_options.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from nexus_client.dropshot.command_line import UNREACHABLE, OneOf, taking, typed
from sim_sled.cli import rss
from sim_sled.cli.surface import fail, say


@taking("asked", rss.Options)
@typed(OneOf(("--dry-run", "--configs"), "print two things; give one"))
def handoff(
    sled_id: Annotated[UUID, typer.Argument(metavar="SLED_UUID")],
    sled_addr: Annotated[str, typer.Argument(metavar="SLED_ADDR")],
    nexus_addr: Annotated[str, typer.Argument(metavar="NEXUS_ADDR", help="Nexus internal API")],
    nexus_lockstep_port: Annotated[int, typer.Argument(metavar="NEXUS_LOCKSTEP_PORT", min=0, max=65535)] = 12232,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the body instead of sending it")] = False,
    configs: Annotated[
        bool, typer.Option("--configs", help="print the sled configurations that go with it, by sled")
    ] = False,
    also: Annotated[list[str] | None, typer.Option(metavar="UUID=ADDR", help="one more sled (repeatable)")] = None,
    hardware: Annotated[Path | None, typer.Option(help="TOML or JSON file with the sleds' hardware")] = None,
    zpools: Annotated[int | None, typer.Option(min=0, help="of each sled, a U.2 disk each")] = None,
    role: Annotated[str | None, typer.Option(help="gimlet or scrimlet")] = None,
    asked: rss.Options,
) -> None:
    """Hand a rack over to Nexus, once, for sleds that run elsewhere. `serve` does it by itself.

    Takes the words of `serve`; ports that nobody names are those that the sleds of a rack have.
    """
    import asyncio
    import json

    from sim_sled.cli.sled_options import parse_also, read_hardware, read_sled_address
    from sim_sled.companions.handoff import facts_of, password_hash, send
    from sim_sled.companions.servers import foreseen
    from sim_sled.core.config import SledConfig
    from sim_sled.core.estate import RACK_ID
    from sim_sled.core.handoff.body import make
    from sim_sled.core.handoff.refusals import explain, unreachable
    from sim_sled.core.handoff.wishes import HandoffImpossible, Wishes
    from sim_sled.daemon.clock import Clock

    wishes = asked.wishes(nexus_addr, nexus_lockstep_port) or Wishes(
        nexus_addr, nexus_lockstep_port, rack_id=asked.rack_id or RACK_ID
    )
    made_of = read_hardware(hardware, {"zpools": zpools, "role": role}, sled_id, read_sled_address(sled_addr))
    named = [(sled_id, read_sled_address(sled_addr)), *map(parse_also, also or [])]
    sleds = [SledConfig(each, address, hardware=made_of) for each, address in named]
    sleds = rss.two_scrimlets(sleds, given=role is not None)
    try:
        beside = foreseen(sleds, rss.ports(wishes, sleds))
        hashed = "" if configs else password_hash(wishes)  # two seconds, and nothing of a configuration
        made = make(wishes, facts_of(wishes, sleds, beside, Clock().now_us(), hashed))
    except HandoffImpossible as why:
        fail(f"no hand-off can be made of this: {why}")
    for told in made.told:
        say(told)
    if configs:
        typer.echo(json.dumps({str(each): config for each, config in made.configs.items()}, indent=1))
    elif dry_run:
        typer.echo(json.dumps(made.body, indent=1))
    else:
        answer = asyncio.run(send(wishes, made.body))
        if answer.status is None:
            fail(unreachable("the lockstep API", wishes.lockstep, answer.message), UNREACHABLE)
        if answer.status != 204:
            fail(explain(answer.status, answer.message, wishes), UNREACHABLE)
        typer.echo(f"the rack {wishes.rack_id} is handed over")
