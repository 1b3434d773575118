"""Commands on scenarios: check, run, replay, explore, shrink, explain, and the group `scenario`.

`add_to(app)` mounts them; what they do is in `cli/scenario_commands.py`, `cli/traces.py`, `cli/exploring.py` and
`cli/scenario_texts.py`. Over 500 lines: their options.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any, Final, Protocol

import typer

from nexus_client.dropshot.command_line import ADDRESS_IN_USE, CLOSED_ADDRESS, App, Idle, Needs, typed
from nexus_client.dropshot.command_line import UNREACHABLE as NO_NEXUS
from nexus_client.dropshot.telling import fitted
from nexus_client.dropshot.text import counted, shown_lines
from propolis_stub.pace_option import Pace
from sim_sled.cli.importing import import_command
from sim_sled.cli.recording import tape
from sim_sled.cli.surface import fail, interruptible
from sim_sled.files import write_text
from sim_sled.language.figures import BadValue, parse_duration
from sim_sled.language.files import is_folder
from sim_sled.machine import cannot_bind

BAR_AFTER_S: Final = 1.0
"""What is through sooner needs no bar."""

group = App(help="The scenario language: library, JSON Schema, reference.")


def in_library(incomplete: str) -> list[str]:
    """Names of the library for the shell's completion; what is none of them it completes as a file."""
    from sim_sled.play import library

    return [one.name for one in library.listed() if one.name.startswith(incomplete)]


Files = Annotated[
    list[str],
    typer.Argument(help="files, folders, names of the library, or - for stdin", autocompletion=in_library),
]
File = Annotated[str, typer.Argument(help="a file, a name of the library, or - for stdin", autocompletion=in_library)]
FileOrTrace = Annotated[
    str,
    typer.Argument(help="a file, a name of the library, - for stdin, or a trace of `run`", autocompletion=in_library),
]
Seed = Annotated[int | None, typer.Option(help="wins over the scenario's", min=0, max=2**64 - 1)]
Variant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="a deliberately wrong Nexus, to test the scenario (sim-sled docs nexus-model)"),
]
SledVariant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="deliberately wrong sleds, to test the scenario (sim-sled docs properties)"),
]
FilesFrom = Annotated[
    list[Path] | None,
    typer.Option(help="a further folder for `include` and `file(...)`; else only the scenario's own, and below"),
]
Hazard = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="a known wrong of Nexus or the agent is on, all others are off (sim-sled docs nexus-model)",
    ),
]
Swarm = Annotated[bool, typer.Option("--swarm", help="the seed draws rules, latencies, sizes and faults, too")]
Jobs = Annotated[int, typer.Option(help="processes", min=1, max=256)]


def add_to(app: typer.Typer) -> None:
    """Mount the commands on the program's app."""
    for name, command in (
        ("check", check),
        ("run", run),
        ("replay", replay),
        ("tape", tape),
        ("explain", explain),
        ("explore", explore),
        ("shrink", shrink),
        ("import", import_command),
    ):
        app.command(name)(command)
    app.add_typer(group, name="scenario")


def check(
    files: Files,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    files_from: FilesFrom = None,
) -> None:
    """Validate scenarios: every problem of every file, with line and column. Exit 2 if there is an error."""
    from sim_sled.cli.scenario_texts import check_files

    text, code = check_files(files, as_json=json, files_from=files_from or ())
    sys.stdout.write(text if json else fitted(text))
    raise typer.Exit(code)


def run(
    files: Files,
    seed: Seed = None,
    clock: Annotated[str, typer.Option(help="virtual, or wall: real sockets on this machine")] = "virtual",
    jobs: Jobs = 1,
    variant: Variant = None,
    sled_variant: SledVariant = None,
    hazard: Hazard = None,
    swarm: Swarm = False,
    pace: Pace = None,
    until: Annotated[
        str | None, typer.Option(metavar="DURATION", help="end at this time of the run, e.g. 10m")
    ] = None,
    require_fired: Annotated[bool, typer.Option(help="exit 4 if a rule never fired")] = False,
    strict: Annotated[bool, typer.Option(help="a warning of the run fails it: exit 1")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML")] = None,
    events: Annotated[Path | None, typer.Option(help="write every happening as a line of JSON")] = None,
    trace: Annotated[Path | None, typer.Option(help="write the trace, for `replay`")] = None,
    timeline: Annotated[Path | None, typer.Option(help="write Trace Event JSON, for Perfetto")] = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="HOSTNAME=FILE", help="write a Mermaid sequence of one instance")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="write an HTML page with a time slider, all in one file")] = None,
    files_from: FilesFrom = None,
) -> None:
    """Play scenarios in the closed world: sleds, network, users and the Nexus model. Exit 1 if one fails."""
    from sim_sled.cli.scenario_commands import RunOptions, run_files

    if clock not in ("virtual", "wall"):
        fail(f"--clock is virtual or wall, not '{clock}'")
    if clock == "wall" and (trace is not None or jobs > 1):
        option = "--jobs" if trace is None else "--trace"
        fail(f"{option} is for --clock virtual: real sockets never repeat exactly")
    options = RunOptions(
        seed=seed,
        variant=variant,
        sled_variant=sled_variant,
        hazard=hazard,
        swarm=swarm,
        jobs=jobs,
        pace=pace,
        until_us=_duration("--until", until),
        require_fired=require_fired,
        strict=strict,
        as_json=json,
        junit=junit,
        events=events,
        trace=trace,
        timeline=timeline,
        sequence=_sequence(sequence),
        page=page,
        files_from=tuple(files_from or ()),
    )
    if clock == "wall":
        _say(_on_sockets(files, options))
    played = 0

    def one_more(_run: Any) -> None:
        nonlocal played
        played += 1

    with interruptible(lambda: counted(played, "run")), _watching() as progress:
        outcome = run_files(files, options, progress, after_each=one_more)
    _say(outcome, sentences=not json and junit != Path("-"))


def _on_sockets(files: list[str], options: Any) -> Any:
    """Each line as it happens: on stdout, on stderr if stdout is for JSON."""
    from sim_sled import logs
    from sim_sled.cli.scenario_commands import run_files
    from sim_sled.daemon.on_sockets import play_tasks

    logs.configure(level="warning")
    live = sys.stderr if options.as_json else sys.stdout

    def say(line: str) -> None:
        live.write(line + "\n")
        live.flush()

    try:
        return run_files(files, options, player=lambda tasks: play_tasks(tasks, say))
    except TimeoutError:
        fail("the fleet could not be registered with the model of Nexus", NO_NEXUS)
    except OSError as error:
        if error.errno not in CLOSED_ADDRESS:
            raise
        fail(f"{cannot_bind(error)}; --clock virtual needs no sockets", ADDRESS_IN_USE)


def replay(
    file: Annotated[str, typer.Argument(metavar="TRACE|DIR", help="a trace of `run`, or what --record has written")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    scrub: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="of a DIR: write a copy without personal things into OUT, and play that"),
    ] = None,
    opened: Annotated[
        bool, typer.Option("--open", help="of a DIR: answers from the model of Nexus, not the recorded ones")
    ] = False,
) -> None:
    """Play a run, or the recording of a rack, again and compare. Exit 1 if it is not the same."""
    if Path(file).is_dir() or scrub is not None or opened:
        from sim_sled.cli.recording import open_folder, replay_folder, scrub_folder

        if scrub is not None and opened:
            fail("--scrub and --open are two runs: first one, then the other")
        if scrub is not None:
            raise typer.Exit(scrub_folder(Path(file), scrub, as_json=as_json))
        if opened:
            raise typer.Exit(open_folder(Path(file), as_json=as_json))
        raise typer.Exit(replay_folder(Path(file), as_json=as_json))
    from sim_sled.cli.traces import replay_file

    with _watching() as progress:
        outcome = replay_file(file, progress, as_json=as_json)
    _say(outcome)


def page_of(trace: Path, out: Path) -> None:
    """Write a recorded run as a page."""
    from sim_sled.cli.traces import page_of_trace

    with _watching() as progress:
        outcome = page_of_trace(str(trace), out, progress)
    _say(outcome)


def explain(
    file: FileOrTrace,
    vmm: Annotated[
        str | None,
        typer.Argument(
            metavar="VMM", help="v17, a host name, or an id; if missing: which rules fire, in their order"
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="DURATION", help="time of the run, e.g. 12s; its end if missing")
    ] = None,
    seed: Seed = None,
    variant: Variant = None,
    sled_variant: SledVariant = None,
    hazard: Hazard = None,
    swarm: Swarm = False,
    pace: Pace = None,
    files_from: FilesFrom = None,
) -> None:
    """Explain where a VMM is at a time of a run; without VMM, list the rules that fire. Options as of `run`; a trace
    has them itself.
    """
    from sim_sled.cli.scenario_commands import RunOptions
    from sim_sled.cli.traces import rules_in_run, why_in_run

    options = RunOptions(
        seed=seed,
        variant=variant,
        sled_variant=sled_variant,
        hazard=hazard,
        swarm=swarm,
        pace=pace,
        files_from=tuple(files_from or ()),
    )
    if vmm is None:
        _say(rules_in_run(file, _duration("--at", at), options), sentences=True)
    else:
        _say(why_in_run(file, vmm, _duration("--at", at), options), sentences=True)


@typed(
    Needs(("--guide",), ("--swarm",)),
    Needs(("--resume",), ("--results",)),
    Idle(("--jobs",), "--on", ("--shrink",)),
)
def explore(
    file: File,
    runs: Annotated[int, typer.Option(help="seeds to try", min=1, max=10_000_000)] = 100,
    jobs: Jobs = 2,
    first_seed: Annotated[int, typer.Option(help="the first one", min=0, max=2**64 - 1)] = 0,
    failures: Annotated[int, typer.Option(help="stop after so many; 0: never", min=0, max=10_000_000)] = 0,
    variant: Variant = None,
    sled_variant: SledVariant = None,
    hazard: Hazard = None,
    swarm: Swarm = False,
    guide: Annotated[bool, typer.Option(help="of a swarm: follow the seeds that reach something new")] = True,
    results: Annotated[Path | None, typer.Option(help="keep the campaign here, a line of JSON per run")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the file of --results")] = False,
    on: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT", help="play on a Dask cluster")] = None,
    shrink: Annotated[bool, typer.Option("--shrink", help="reduce the first failure of each group")] = False,
    found: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a folder per group; NAME.found here, if missing")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write the failing seeds here, one per line")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML: a test case per group")] = None,
    files_from: FilesFrom = None,
) -> None:
    """Play many seeds, here or on a cluster, and group what fails. Exit 1 if one did."""
    from sim_sled.cli.exploring import ExploreOptions, explore_file

    options = ExploreOptions(
        runs=runs,
        jobs=jobs,
        first_seed=first_seed,
        stop_after=failures or None,
        variant=variant,
        sled_variant=sled_variant,
        hazard=hazard,
        swarm=swarm,
        guided=guide,
        results=results,
        resume=resume,
        on=on,
        shrink=shrink,
        found=found,
        out=out,
        as_json=json,
        junit=junit,
        files_from=tuple(files_from or ()),
    )
    with _campaign(runs) as (told, say):
        _, outcome = explore_file(file, options, told, say)
    _say(outcome, sentences=not json and Path("-") not in (out, junit))


def shrink(
    file: File,
    seed: Seed = None,
    variant: Variant = None,
    sled_variant: SledVariant = None,
    hazard: Hazard = None,
    swarm: Swarm = False,
    jobs: Jobs = 1,
    what: Annotated[str | None, typer.Option(help="which failure, as explore names it; the first if missing")] = None,
    out: Annotated[Path | None, typer.Option(help="write the smaller scenario here instead of stdout")] = None,
    files_from: FilesFrom = None,
) -> None:
    """Reduce a failing scenario while it still fails for the same reason."""
    from sim_sled.cli.scenario_commands import shrink_file, unwritable

    if (bad := unwritable([out])) is not None:
        _say(bad)
    with _counting(None, "runs") as count:
        small, outcome = shrink_file(
            file,
            seed,
            variant=variant,
            sled_variant=sled_variant,
            hazard=hazard,
            swarm=swarm,
            key=what,
            jobs=jobs,
            files_from=files_from or (),
            told=lambda runs, _: count(runs),
        )
    if small is not None:
        sleds = small.scenario.fleet.sleds
        sys.stderr.write(
            f"{counted(small.runs, 'run')}: {counted(sleds, 'sled')}, {counted(small.vmms, 'VMM')}, "
            f"{counted(len(small.scenario.rules), 'rule')}\n"
        )
    if out is not None and small is not None:
        write_text(out, outcome.out)
        raise typer.Exit(outcome.code)
    _say(outcome)


@group.command("list")
def list_command(
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    long: Annotated[
        bool, typer.Option("--long", help="on a terminal too, more than the first sentence of each")
    ] = False,
) -> None:
    """The scenarios of the library, each with the incident it reproduces; in a pipe, tabs lie between."""
    from sim_sled.cli.scenario_texts import list_text

    width = get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(list_text(as_json=json, width=width, long=long))


Library = Annotated[
    str, typer.Argument(metavar="NAME", help="as `scenario list` prints it", autocompletion=in_library)
]


@group.command("show")
def show_command(name: Library) -> None:
    """Print a scenario of the library."""
    sys.stdout.write(_in_library(name).read_text(encoding="utf-8"))


@group.command("copy")
def copy_command(
    name: Library,
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="NAME.yaml here, if missing")] = None,
    force: Annotated[bool, typer.Option(help="overwrite what is there")] = False,
) -> None:
    """Copy a scenario of the library, to make it your own."""
    found = _in_library(name)
    target = to or Path(found.name)
    if is_folder(target):
        target = target / found.name
    try:
        # "x": two people (or a typo) must not overwrite a file that somebody has edited
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(found.read_text(encoding="utf-8"))
    except FileExistsError:
        fail(f"{target} exists; --force overwrites it")
    except OSError as error:
        fail(f"cannot write {target}: {error.strerror}")
    sys.stdout.write(f"{target}\n")


def _in_library(name: str) -> Path:
    from sim_sled.language.words import hint
    from sim_sled.play import library

    if name not in library.names():
        fail(f"the library has no '{name}'{hint(name, library.names()) or ' (sim-sled scenario list)'}")
    return library.folder() / f"{name}.yaml"


@group.command("schema")
def schema_command() -> None:
    """JSON Schema for editors (`# yaml-language-server: $schema=...`)."""
    from sim_sled.language.reference import schema_json

    sys.stdout.write(schema_json())


@group.command("reference")
def reference_command(
    part: Annotated[
        str | None,
        typer.Argument(metavar="PART", help="of it: `actions` for what there is, `stall`, `trigger`, `codes`"),
    ] = None,
) -> None:
    """The reference page of the language, in Markdown, or a part of it."""
    from sim_sled.cli.docs import show
    from sim_sled.language.reference import parts, reference_md
    from sim_sled.language.words import hint

    if part is None:
        sys.stdout.write(reference_md())
        return
    there = parts()
    if (text := there.get(part.lower())) is None:
        all_of_them = f"; there are: {', '.join(there)}"
        fail(f"the reference has no part '{part}'{hint(part.lower(), there) or all_of_them}")
    show(text)


# ---- helpers


def _say(outcome: Any, *, sentences: bool = False) -> None:
    """`sentences`: nothing in it is to be copied as it stands."""
    sys.stderr.write(fitted(shown_lines(outcome.err), sys.stderr))
    text = shown_lines(outcome.out)
    sys.stdout.write(fitted(text) if sentences else text)
    raise typer.Exit(outcome.code)


def _duration(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_duration(text)
    except BadValue as error:
        fail(f"{option}: {error.text}")


def _sequence(text: str | None) -> tuple[str, Path] | None:
    if text is None:
        return None
    hostname, equals, path = text.partition("=")
    if not equals or not path:
        fail(f"--sequence is HOSTNAME=FILE, not '{text}'")
    return hostname, Path(path)


@contextmanager
def _watching() -> Iterator[Callable[[Any], None] | None]:
    """Live figures of a run, on a terminal only, for whatever lasts longer than a second."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    started, told = time.monotonic(), 0.0  # noqa: TID251 -- the shell may look at the clock
    with Console(stderr=True).status("") as status:

        def progress(world: Any) -> None:
            nonlocal told
            now = time.monotonic()  # noqa: TID251 -- same
            if now - started > BAR_AFTER_S and now - told > 0.1:
                told = now
                living = sum(not who.gone for who in world.engine.cast.subjects.values())
                status.update(
                    f"{world.scenario.name}: {world.elapsed_us / 1e6:.0f} s, {world.steps} steps, {living} VMMs, "
                    f"{len(world.judge.failures)} failures"
                )

        yield progress


class _Count(Protocol):
    def __call__(self, done: int, failed: int | None = None, /) -> None:
        """How many are through, and how many of them failed; None: whether they do is not the question."""


@contextmanager
def _counting(total: int | None, noun: str) -> Iterator[_Count]:
    """A bar on a terminal, nothing elsewhere; Ctrl-C is answered with how far it came."""
    came: tuple[int, int | None] = (0, None)

    def how_far(of: str = "" if total is None else f"of {total} ") -> str:
        done, failed = came
        return f"{done} {of}{noun}" + ("" if failed is None else f", {failed} failed")

    def count(done: int, failed: int | None = None) -> None:
        nonlocal came
        came = (done, failed)
        if bar is not None:
            bar.update(task, completed=done, description=how_far(""))

    with interruptible(how_far), ExitStack() as stack:
        bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            task = bar.add_task(noun, total=total)
        yield count


@contextmanager
def _campaign(total: int) -> Iterator[tuple[Callable[[Any], None], Callable[[str], None]]]:
    """As `_counting`, with the figures of a campaign; and sentences on the way, above the bar."""
    from sim_sled.cli.exploring import brief, so_far

    latest: Any = None
    started = time.monotonic()  # noqa: TID251 -- the shell may look at the clock

    def how_far() -> str:
        return "0 runs" if latest is None else so_far(latest)

    def told(explored: Any) -> None:
        nonlocal latest
        latest = explored
        if bar is not None:
            took_s = time.monotonic() - started  # noqa: TID251 -- same
            rate = (explored.runs - explored.resumed) / max(took_s, 0.001)
            bar.update(task, completed=explored.runs, description=brief(explored, rate))

    def say(sentence: str) -> None:
        text = shown_lines(sentence)
        if bar is not None:
            bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")

    with interruptible(how_far), ExitStack() as stack:
        bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=6), TimeRemainingColumn())
            bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
            task = bar.add_task("0 runs", total=total)
        yield told, say
