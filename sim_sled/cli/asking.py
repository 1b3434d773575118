"""Commands that ask a running daemon. `add_to(app)` mounts them.

Each is a function whose first parameter is the daemon (`to: Found`); `_asks` gives it the options by which a person
says which one: `--at`, `--rack`, `--port-file`, `--token`. They are the same everywhere.

Read before: cli/control_client.py. Read next: cli/bench.py, cli/racks.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nexus_client.dropshot import foreign
from nexus_client.dropshot.bearer import BadToken, token_from
from nexus_client.dropshot.command_line import App, Needs, OneOf, Together, taking, typed
from nexus_client.dropshot.text import counted, peer_address
from sim_sled.cli.surface import fail

if TYPE_CHECKING:
    from sim_sled.cli.control_client import Found


def _address(text: str | None) -> str | None:
    try:
        return None if text is None else peer_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _name(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("an empty text is nobody's name")
    return text


def _token(text: str | None) -> str | None:
    try:
        return token_from(text, None)
    except BadToken as error:
        raise typer.BadParameter(str(error)) from None


At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="ADDR", envvar="SIM_SLED_CONTROL", callback=_address, help="control API of the daemon"
    ),
]


def _racks(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from sim_sled.daemon import racks

    return [name for name in racks.running() if name.startswith(incomplete)]


Rack = Annotated[
    str | None,
    typer.Option("--rack", metavar="NAME", help="of `up`; the only one that runs, if missing", autocompletion=_racks),
]
FromPortFile = Annotated[
    Path | None, typer.Option("--port-file", metavar="FILE", help="take the address from a port file")
]

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TEXT",
        envvar="SIM_SLED_TOKEN",
        callback=_token,
        help="what the daemon was started with, if it was",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Vmm = Annotated[
    str, typer.Argument(metavar="VMM", callback=_name, help="host name, ordinal (v17), UUID or its beginning")
]
State = Annotated[str, typer.Argument(metavar="STATE", help="running, stopped, destroyed, ...")]

_SAY_WHICH: Final = "are two ways to say which daemon; give one"
WHICH_ONCE: Final = OneOf(("--at", "--rack", "--port-file"), _SAY_WHICH)


def _asks(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options that say which daemon, instead of its parameter `to`."""
    own_rules: tuple[Together, ...] = getattr(function, "together", ())
    return typed(WHICH_ONCE, *own_rules)(taking("to", found)(function))


def found(*, at: At = None, rack: Rack = None, port_file: FromPortFile = None, token: Token = None) -> Found:
    """The daemon that is meant. Exits with 2 if that is not clear, 3 if none runs."""
    from sim_sled.cli import control_client

    # a name or a file that is typed wins over an address in the environment; typed together they are refused
    told = at if rack is None and port_file is None else None
    return control_client.Found(control_client.where(told, port_file, rack), token)


@typed(
    OneOf(("TRACE", *WHICH_ONCE.names), "do not go together: a page is of a trace or of a daemon"),
    Needs(("--out",), ("TRACE",)),
)
def page(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="a finished run, as `run --trace` writes it")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="TRACE.html, if missing")] = None,
    at: At = None,
    rack: Rack = None,
    port_file: FromPortFile = None,
) -> None:
    """Print the address of a running daemon's live page; with a TRACE, write a page of that run, all in one file."""
    if trace is None:
        from sim_sled.cli import control_client

        raise typer.Exit(control_client.page(found(at=at, rack=rack, port_file=port_file).address))
    from sim_sled.cli.scenario import page_of

    page_of(trace, out or trace.parent / f"{trace.stem}.html")


@typed(OneOf(("--watch", "--json"), "do not go together: JSON is not drawn again; see `events --follow`"))
def ps(
    to: Found,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="draw it again every second, until Ctrl-C")] = False,
) -> None:
    """List the VMMs of a running daemon; in a pipe, columns are separated by tabs."""
    from sim_sled.cli import control_client

    raise typer.Exit(
        control_client.watch_ps(to.address, to.token) if watch else control_client.ps(to.address, to.token, as_json)
    )


def expect(
    to: Found,
    vmm: Vmm,
    state: State,
    within: Annotated[str, typer.Option(metavar="DURATION", help="how long it may take, like 30s")] = "30s",
    since: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="a state that was passed within so long also counts, like 1m"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a VMM is in a state. Exit 1 with its timeline and why it is where it is, if not in time."""
    from sim_sled.cli import control_client

    asked = control_client.Asked(vmm, state, _patience_us(within), None if since is None else _us(since, "--since"))
    raise typer.Exit(control_client.expect(to.address, to.token, asked, as_json=as_json))


def wait(
    to: Found,
    vmm: Vmm,
    state: State,
    within: Annotated[str, typer.Option(metavar="DURATION", help="when to give up; an hour at most")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Wait until a VMM is in a state, which may take its time: `expect` for whoever is in no hurry."""
    from sim_sled.cli import control_client

    asked = control_client.Asked(vmm, state, _patience_us(within), None)
    raise typer.Exit(control_client.expect(to.address, to.token, asked, as_json=as_json))


def events(
    to: Found,
    follow: Annotated[bool, typer.Option("--follow", help="and go on until Ctrl-C")] = False,
    after: Annotated[int, typer.Option(min=0, help="only those behind this number")] = 0,
    _as_json: Annotated[bool, typer.Option("--json", help="the lines are JSON anyway")] = False,
) -> None:
    """Print what happens on a running daemon, a JSON line each."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.events(to.address, to.token, after, follow=follow))


def _us(text: str, option: str) -> int:
    from sim_sled.language.figures import FOREVER, BadValue, parse_duration

    try:
        return min(parse_duration(text), FOREVER)
    except BadValue as error:
        fail(f"{option}: {error.text}")


def _patience_us(within: str) -> int:
    from sim_sled.cli.control_client import PATIENCE_US

    within_us = _us(within, "--within")
    if within_us > PATIENCE_US:
        fail(f"--within: {within} is longer than an hour, and no daemon waits longer")
    return within_us


def pause(to: Found, as_json: AsJson = False) -> None:
    """Stop the clock of a running daemon: whatever takes time waits, requests are still answered."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.moment(to.address, to.token, "/pause", as_json))


def resume(to: Found, as_json: AsJson = False) -> None:
    """Let the clock run again after pause, step or until."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.moment(to.address, to.token, "/resume", as_json))


def step(
    to: Found,
    steps: Annotated[
        int, typer.Argument(metavar="COUNT", min=1, max=10_000, help="how many moments are to go by")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Move the clock to what is due next, or COUNT times so; it stays stopped."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.move(to.address, to.token, "/step", {"steps": steps}, as_json))


@typed(Needs(("--within",), ("STATE",)))
def until(
    to: Found,
    what: Annotated[str, typer.Argument(metavar="VMM|DURATION", help="whom to wait for, or how long, like 90s")],
    state: Annotated[str, typer.Argument(metavar="STATE", help="running, stopped, destroyed, ...")] = "",
    within: Annotated[str, typer.Option(metavar="DURATION", help="how much time may go by at most")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Move the clock fast until a VMM is in a state, or for a duration; then it is stopped.

    Durations are of the daemon's own time. Exit 1 with the VMM's timeline and why if it is not so in time.
    """
    from sim_sled.cli import control_client

    wanted: dict[str, Any] = {"within_ms": _us(within if state else what, "--within" if state else "until") // 1000}
    if state:
        wanted |= {"who": what, "state": state}
    raise typer.Exit(control_client.move(to.address, to.token, "/until", wanted, as_json))


def snapshot(
    to: Found,
    out: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="where to write it; stdout if missing or -")
    ] = None,
) -> None:
    """Write a whole rack to one file, timers and the Nexus model included."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.snapshot(to.address, to.token, None if out == Path("-") else out))


def restore(
    to: Found,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="of `snapshot`; - is stdin")],
    as_json: AsJson = False,
) -> None:
    """Put a rack of the same name and size back to where a snapshot was taken."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.restore(to.address, to.token, file, as_json))


def ready(to: Found, wait: Annotated[float, typer.Option(min=0, help="seconds to wait for it")] = 0.0) -> None:
    """Succeed once every sled of a daemon is registered with Nexus."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.ready(to.address, to.token, wait))


def why(to: Found, vmm: Vmm, as_json: AsJson = False) -> None:
    """Explain why a VMM is where it is."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.why(to.address, to.token, vmm, as_json))


def log(to: Found, vmm: Vmm, as_json: AsJson = False) -> None:
    """Print what happened to a VMM lately."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.log(to.address, to.token, vmm, as_json))


def inject(
    to: Found,
    vmm: Vmm,
    fault: Annotated[
        str,
        typer.Argument(
            help="a state (failed), what its guest does (halt), an action of the scenario language (stall, hold, "
            'kill_propolis), or JSON (\'{"state": "failed"}\')'
        ),
    ],
    value: Annotated[
        str, typer.Argument(help="of the action, as in a file: 30s, 'publish: running'; its usual one, if missing")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a VMM misbehave: `inject web stall 30s`, `inject web hold`, `inject web failed`."""
    from sim_sled.cli import control_client

    wanted = _fault(fault, value)
    raise typer.Exit(control_client.inject(to.address, to.token, vmm, wanted, as_json=as_json))


_USUAL: Final = {"hold": "{publish: '*'}", "migration": "failed"}
"""Values of actions that mean nothing without one, where there is one that people mean."""


def _fault(fault: str, value: str) -> dict[str, Any]:
    """The body of `/vmms/.../inject`. Exits with 2."""
    import sim_sled.engine.act  # noqa: F401 -- its modules say in DOING what they do
    from propolis_stub.guest_events import GuestEvent
    from sim_sled.engine.act.firing import DOING, Needs
    from sim_sled.language.actions import Hold
    from sim_sled.language.words import STATES, hint

    if fault.lstrip().startswith("{"):
        try:
            told = foreign.loads(fault)
        except ValueError as error:
            fail(f"{fault!r} is no JSON: {error}")
        if value:
            fail("JSON says everything by itself: no value behind it")
        return dict(told)
    actions = {each.key for each, doing in DOING.items() if each is Hold or doing.needs is Needs.VMM}
    if fault in actions:
        given = value or _USUAL.get(fault, "{}")
        field = re.match(r"([a-z_]+): *", given)
        if field is not None:  # `publish: running` and `publish:running`
            given = f"{{{field[1]}: {given[field.end() :]}}}"
        return {"do": f"{fault}: {given}"}
    guests = {each.value for each in GuestEvent}
    if value and fault in {*guests, *STATES}:
        fail(f"{fault!r} takes no value")
    if fault in guests:
        return {"guest": fault}
    if fault not in STATES:
        needs = next((doing.needs for each, doing in DOING.items() if each.key == fault), None)
        if needs is Needs.SLED:
            rule = "write a rule with `when: {manual: NAME}` that does it, and sim-sled fire NAME"
            fail(f"{fault!r} is done to a sled, not to a VMM: {rule} (sim-sled docs scenarios)")
        if needs is Needs.NOTHING:
            rule = "write a rule that does it (sim-sled docs scenarios)"
            fail(f"{fault!r} is done to a request or a report, or to Nexus, not to a VMM: {rule}")
        known = sorted({*actions, *guests, *STATES})
        fail(f"there is no {fault!r} to inject{hint(fault, known)}; there are: {', '.join(known)}")
    return {"state": fault}


def rules(to: Found, as_json: AsJson = False) -> None:
    """List the rules of a daemon's scenario, and how often they fired."""
    from sim_sled.cli import control_client

    raise typer.Exit(control_client.rules(to.address, to.token, as_json))


Name = Annotated[str, typer.Argument(metavar="NAME", callback=_name, help="as `rules` lists it")]


def fire(
    to: Found,
    name: Annotated[str, typer.Argument(metavar="NAME", callback=_name, help="of a rule's `when: {manual: NAME}`")],
    as_json: AsJson = False,
) -> None:
    """Fire a manual trigger of a daemon's scenario."""
    from nexus_client.dropshot.routes import segment
    from sim_sled.cli import control_client
    from sim_sled.daemon.control_answers import Fired

    path = f"/fire/{segment(name)}"
    raise typer.Exit(control_client.post(to, path, Fired, lambda told: f"fired {told['fired']}", as_json=as_json))


def release(to: Found, name: Name, as_json: AsJson = False) -> None:
    """Release what a rule holds: reports, or a stalled VM."""
    from nexus_client.dropshot.routes import segment
    from sim_sled.cli import control_client
    from sim_sled.daemon.control_answers import Released

    def told(answer: Released) -> str:
        return f"released what {answer['released']} held"

    raise typer.Exit(control_client.post(to, f"/release/{segment(name)}", Released, told, as_json=as_json))


@typed(WHICH_ONCE, OneOf(("RACK", "--at", "--port-file"), _SAY_WHICH))
def scale(
    name: Annotated[str | None, typer.Argument(metavar="RACK", help="the same as --rack")] = None,
    sleds: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="how many there shall be; to be given")
    ] = None,
    at: At = None,
    rack: Rack = None,
    port_file: FromPortFile = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Add sleds to a running rack, or remove the newest with their VMs."""
    from sim_sled.cli import control_client
    from sim_sled.daemon.control_answers import Sleds

    if sleds is None:
        fail("how many? scale --sleds COUNT")

    def told(answer: Sleds) -> str:
        return f"the rack has {counted(answer['sleds'], 'sled')} now"

    to = found(at=at, rack=one_name(name, rack), port_file=port_file, token=token)
    body = json.dumps({"sleds": sleds}).encode()
    raise typer.Exit(control_client.post(to, "/scale", Sleds, told, as_json=as_json, body=body))


def one_name(name: str | None, rack: str | None) -> str | None:
    """Of a rack that is named as an argument or as an option. Exits with 2 if both are given and differ."""
    if name is not None and rack is not None and name != rack:
        fail(f"which rack, {name} or --rack {rack}?")
    return rack if name is None else name


def add_to(app: App) -> None:
    """Mount the commands on the program's app."""
    app.command()(page)
    app.command()(scale)
    for command in (ps, expect, wait, events, pause, resume, step, until, snapshot, restore, ready, why, log, inject,
                    rules, fire, release):  # fmt: skip
        app.command()(_asks(command))
