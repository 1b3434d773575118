"""What all our programs have in common as commands: their exit codes, and help that nobody has to widen a window for.

    app = App(name="sim-sled", help=...)      # a typer.Typer

Help fits 80 columns, on a terminal and in a pipe; a summary is never cut. Every command takes `--json`: one that has
no structured answer of its own tells its lines so, and so does any that fails before it has one. `--version` is on
the program and on every command.

Read before: dropshot/durations.py, dropshot/streams.py, dropshot/telling.py.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache, partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Final, NamedTuple, TextIO, cast, get_args, get_type_hints
from uuid import UUID

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command_name
from typer.models import CommandInfo

from nexus_client.dropshot import ending, foreign, telling
from nexus_client.dropshot.durations import UNITS_US, microseconds

GOOD, FAILED, BAD_INPUT, UNREACHABLE, NEVER_FIRED, ADDRESS_IN_USE = 0, 1, 2, 3, 4, 5
INTERRUPTED = ending.CODES[signal.SIGINT]

EXIT_CODES: Final = {
    GOOD: "done; what was asked for is so",
    FAILED: "what was asked for is not so: a run, an expectation or a check failed, a daemon is not ready",
    BAD_INPUT: "bad input: an option, a file, a scenario; or nowhere to write to. Nothing was started or changed",
    UNREACHABLE: "nobody is there: no rack, no daemon, no cluster, no Nexus in time; or Nexus refuses the sleds",
    NEVER_FIRED: "all is well, but a rule never fired (`run --require-fired`)",
    ADDRESS_IN_USE: "an address is in use, or not ours to bind",
    INTERRUPTED: "Ctrl-C",
    ending.READER_GONE: "the reader of the output has gone, as `head` does once it has enough; nothing is said",
    ending.TERMINATED: "SIGTERM, but for servers: once they begin to serve, it ends them in order with 0",
}
"""Of every program and command; `manual` and docs/commands.md have them. Nothing else says what a number means."""

CLOSED_ADDRESS: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
"""What binding an address ends with where it is `ADDRESS_IN_USE`."""

ENDS: Final = (typer.Exit, TyperException, SystemExit)
"""How a command ends before its last line; of a TyperException `Command` says what is wrong."""

SECONDS_MAX: Final = 1e9
"""Most of an option that is seconds, some 30 years: it becomes integer microseconds, which infinity cannot."""
SETTINGS: Final = {"max_content_width": 80, "terminal_width": 80, "help_option_names": ["--help", "-h"]}
"""The same on a terminal and in a pipe."""


def exit_codes() -> str:
    """The table as Markdown."""
    return "| code | what |\n|---|---|\n" + "".join(f"| {code} | {what} |\n" for code, what in EXIT_CODES.items())


class OneOf(NamedTuple):
    """At most one of these is typed: options by their names, arguments by their metavars."""

    names: tuple[str, ...]
    why: str

    def broken(self, given: Mapping[str, object]) -> str | None:
        """The sentence, if what was given is too much."""
        found = [name for name in self.names if name in given]
        return None if len(found) < 2 else f"{found[0]} and {found[1]} {self.why}"


class Needs(NamedTuple):
    """Each of these means nothing without one of the others."""

    names: tuple[str, ...]
    of: tuple[str, ...]

    def broken(self, given: Mapping[str, object]) -> str | None:
        """The sentence, if one stands alone."""
        alone = [name for name in self.names if name in given and given.keys().isdisjoint(self.of)]
        return f"{alone[0]} needs {' or '.join(self.of)}" if alone else None


class Alone(NamedTuple):
    """Beside this value of an argument nothing is typed, but for a few."""

    argument: str
    value: str
    but: tuple[str, ...]

    def broken(self, given: Mapping[str, object]) -> str | None:
        """The sentence, if there is more."""
        more = [name for name in given if name not in (self.argument, *self.but)]
        return f"{more[0]} means nothing to {self.value}" if given.get(self.argument) == self.value and more else None


class Idle(NamedTuple):
    """These have nothing to do beside an option, or beside one value of it (`--propolis none`), unless one of a few
    others gives them work.
    """

    names: tuple[str, ...]
    beside: str
    unless: tuple[str, ...] = ()

    def broken(self, given: Mapping[str, object]) -> str | None:
        """The sentence, if one would be ignored."""
        option, _, value = self.beside.partition(" ")
        told = given.get(option)
        if option not in given or (value and value != (told.value if isinstance(told, Enum) else told)):
            return None
        idle = [name for name in self.names if name in given and given.keys().isdisjoint(self.unless)]
        but = f" without {' or '.join(self.unless)}" if self.unless else ""
        return f"{idle[0]} means nothing beside {self.beside}{but}" if idle else None


Together = OneOf | Needs | Alone | Idle


def typed(*rules: Together) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What may be typed together of a command's options and arguments. A command that breaks a rule is not begun: an
    option that is ignored would have somebody believe that it holds. What the environment says may be ignored.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.together = rules  # type: ignore[attr-defined]  # `wraps` hands it on to what typer calls
        return function

    return decorate


def taking(name: str, made: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Instead of its parameter `name` a command has the options of `made`, behind all others, and gets what `made`
    makes of them: options that several commands have stand once, in the signature of `made`.
    """
    more = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in _parameters(made)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in _parameters(function, but=name)]

        @wraps(function)
        def command(**given: Any) -> Any:
            theirs = {each.name: given.pop(each.name) for each in more}
            return function(**{name: made(**theirs)}, **given)

        return _with_parameters(command, own + more)

    return decorate


def _parameters(function: Callable[..., Any], but: str = "") -> list[inspect.Parameter]:
    """With annotations that are read. What `but` is, and what is returned, may have names that only mypy knows."""
    read = {each: hint for each, hint in function.__annotations__.items() if each not in (but, "return")}
    hints = get_type_hints(
        SimpleNamespace(__annotations__=read), vars(sys.modules[function.__module__]), include_extras=True
    )
    signature = inspect.signature(function).parameters.items()
    return [each.replace(annotation=hints[name]) for name, each in signature if name != but]


def _with_parameters(command: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """As typer shall see it."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as `wraps` sets it
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]  # as above; its annotations are those of before
    return command


class _Complains:
    """What was typed wrong is told as everything else that is wrong, and where help is; see dropshot/telling.py.

    It is mixed into typer's command and its group, whose next base is click's: what `super()` finds there mypy cannot
    know.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with _told_plainly(f"{'' if parent is None else parent.command_path} {info_name}".strip()):
            return super().make_context(info_name, args, parent, **extra)  # type: ignore[misc]  # see above

    def invoke(self, ctx: Any) -> Any:
        with _told_plainly(ctx.command_path):
            return super().invoke(ctx)  # type: ignore[misc]  # see above

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Lines are not broken at a hyphen: `sim-sled docs` is to be pasted, `--rss-nexus-id` to be found."""
        write = formatter.write_dl
        formatter.write_dl = lambda rows, *more: write([(term, _whole(said)) for term, said in rows], *more)
        super().format_help(ctx, formatter)  # type: ignore[misc]  # see above
        formatter.buffer = [each.replace(_HYPHEN, "-") for each in formatter.buffer]


_HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"


def _whole(text: str) -> str:
    return text.replace("-", _HYPHEN)


@contextlib.contextmanager
def _told_plainly(command: str) -> Iterator[None]:
    try:
        yield
    except TyperException as wrong:
        ctx = getattr(wrong, "ctx", None)
        complain(_plain_words(wrong), command if ctx is None else ctx.command_path)
        raise typer.Exit(wrong.exit_code) from None


def complain(wrong: str, command: str) -> None:
    """Of a command that cannot be begun as it was typed: what is wrong, and where it says what it takes."""
    telling.say(command.partition(" ")[0], f"{wrong}\n  help: {command} --help")


_MEANT: Final = re.compile(r"(.*)\. Did you mean (.*)\?")
_TOO_MANY: Final = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)", re.DOTALL)


def _plain_words(wrong: TyperException) -> str:
    """Typer's sentence as ours are: `no such command 'pss' (did you mean 'ps'?)`."""
    said = _MEANT.sub(r"\1 (did you mean \2?)", _TOO_MANY.sub(r"unexpected '\1'", wrong.format_message()))
    near = getattr(wrong, "possibilities", None)  # of an option that is not there
    if near:
        said = f"{wrong.message} (did you mean {' or '.join(map(repr, near))}?)"
    return (said[:1].lower() + said[1:]).removesuffix(".")


class Command(_Complains, TyperCommand):
    """A command whose usage line reads as everywhere: `FIELD [STATE] FILE...`"""

    def get_params(self, ctx: Any) -> list[Any]:
        for each in _arguments(self):
            # as the usage line has it, in help and in complaints
            each.metavar = each.metavar or each.name.upper() + ("..." if each.nargs != 1 else "")
        return _read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _told_as_json("--json" in args):  # before they are read, which takes them away
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        said = self.out_of_place(ctx)
        if said is not None:
            complain(said, ctx.command_path)
            with _told_as_json(any("--json" in each.opts and ctx.params[each.name] for each in self.params)):
                raise typer.Exit(BAD_INPUT)
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _in_plain_words(ctx, self.get_params(ctx))
        super().format_options(ctx, formatter)

    def out_of_place(self, ctx: Any) -> str | None:
        """What was typed and would have been ignored, by the command's rules (`typed`); None if nothing was."""
        given = {
            called: ctx.params[each.name]
            for each in self.params
            if each.name in ctx.params and getattr(ctx.get_parameter_source(each.name), "name", "") == "COMMANDLINE"
            for called in (each.opts if each.param_type_name == "option" else [(each.metavar or "").strip("[]")])
        }
        rules: tuple[Together, ...] = getattr(self.callback, "together", ())
        said = next((said for rule in rules if (said := rule.broken(given)) is not None), None)
        return None if said is None else _as_typed(said, self.params, given)

    def collect_usage_pieces(self, _ctx: Any, /) -> list[str]:
        return [*([self.options_metavar] if self.options_metavar else []), *map(_piece, _arguments(self))]


class Plain:
    """Values of a parameter as typer makes them, without the library that it asks about each.

    Typer describes every parameter to pydantic, whose import and descriptions are a quarter of the time until a
    daemon is ready. What is plainly right needs neither; whatever else is said, typer itself is asked, and says what
    is wrong with it.
    """

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """See `typer`'s `RuntimeParam`."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        described = param.type_descriptor
        if described.annotation is float and param.metavar in (None, _KINDS["float"]):
            value = _seconds(value)
        try:
            if not several:
                return _plain(value, described.annotation, described.parameter_info)
            (kind,) = get_args(described.annotation)
            return [_plain(each, kind, described.parameter_info) for each in value]
        except _NotPlain:
            if (why := _no_uuid(value, described.annotation)) is not None:
                raise typer.BadParameter(why, ctx, param) from None
            by_typer = type(self._parameter).get_runtime_param(self._parameter)
            try:
                return by_typer.coerce(value, param=param, ctx=ctx)
            except typer.BadParameter as bad:
                why = _no_number(value, described, param.metavar) or bad.message.removeprefix("Value error, ")
                raise typer.BadParameter(why, ctx, param) from None


def _read_plainly(parameters: list[Any]) -> list[Any]:
    for each in parameters:
        each.get_runtime_param = partial(Plain, each)
    return parameters


def _seconds(value: Any) -> Any:
    """Of an option that is seconds: `2m` and `1m30s` are, too; what looks otherwise stays as it is."""
    us = microseconds(value) if isinstance(value, str) else None
    return value if us is None else float(us / UNITS_US["s"])


def _no_number(value: Any, described: Any, metavar: str | None) -> str | None:
    """Why what was given for a number is none, or is too small or too large, as a person would say it."""
    kind, about = described.annotation, described.parameter_info
    if kind not in (int, float) or about.parser is not None or not isinstance(value, str | int | float):
        return None
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not -math.inf < number < math.inf:
        shown = repr(str(value)[:40])
        if kind is int:
            return f"{shown} is not a whole number"
        return f"{shown} is not a number" + ("; write 30, 30s or 2m" if metavar in (None, _KINDS["float"]) else "")
    if about.min is not None and number < about.min:
        return f"{_figure(number)} is less than {_figure(about.min)}"
    if about.max is not None and number > about.max:
        return f"{_figure(number)} is more than {_figure(about.max)}"
    return None


def _figure(number: float) -> str:
    return f"{number:.0f}" if isinstance(number, float) and number.is_integer() else str(number)


def _no_uuid(value: Any, kind: Any) -> str | None:
    """Why what was given for a UUID is none: pydantic would speak of input, and of a character and its place."""
    if UUID not in (kind, *get_args(kind)):
        return None
    for text in value if isinstance(value, list | tuple) else (value,):
        try:
            UUID(str(text))
        except ValueError:
            return f"{str(text)!r} is not a UUID"
    return None


class _NotPlain(Exception):
    """Typer has to say."""


_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def _plain(value: Any, kind: Any, about: Any) -> Any:
    if about.parser is None:
        if kind is str and isinstance(value, str):
            return value
        if kind is UUID and isinstance(value, str) and _ID.fullmatch(value):
            return UUID(value)
        if kind is Path and isinstance(value, str | Path) and not _has_wishes(about, value):
            return Path(value)
        if kind in (int, float):
            return _number(value, kind, about)
        if isinstance(kind, type) and issubclass(kind, Enum):
            for each in kind:
                if value is each or value == each.value:
                    return each
    raise _NotPlain


def _number(value: Any, kind: Any, about: Any) -> Any:
    if (isinstance(value, str) and not _NUMBER.fullmatch(value)) or isinstance(value, bool):
        raise _NotPlain
    if kind is int and not isinstance(value, int) and "." in str(value):
        raise _NotPlain
    number = kind(value)
    least, most = about.min, about.max
    if about.clamp or (least is not None and number < least) or (most is not None and number > most):
        raise _NotPlain
    return number


def _has_wishes(about: Any, path: str | Path) -> bool:
    """Whether there is something to be checked about a path; as typer, one that is there has to be readable."""
    wishes = about.exists or about.writable or about.resolve_path or about.path_type or about.allow_dash
    plain = about.file_okay and about.dir_okay and not wishes
    return not plain or (os.path.exists(path) and not os.access(path, os.R_OK))  # noqa: PTH110 -- no exceptions


class _Heard:
    """A stream, and whether anybody has written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.said = False

    def write(self, text: str) -> int:
        """Nothing may be written as well: an answer that is left out."""
        self.said = self.said or bool(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        self.said = self.said or name in ("writelines", "buffer")
        return getattr(self._stream, name)


@contextlib.contextmanager
def _told_as_json(wanted: bool) -> Iterator[None]:
    """A command that cannot be begun as it was typed answers in JSON too, if that was typed."""
    try:
        yield
    except ENDS as end:
        code = _code_of(end)
        if wanted and code != GOOD:
            sys.stdout.write(_as_json("", code) + "\n")
        raise


def _answered(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Runs a command that prints JSON by itself; if it fails and has printed nothing, what it exits with is printed:
    whoever reads the answer need not look at the exit code first.
    """
    heard = _Heard(sys.stdout)
    try:
        with contextlib.redirect_stdout(cast("TextIO", heard)):
            return function(**given)
    except ENDS as end:
        code = _code_of(end)
        if code != GOOD and not heard.said:
            sys.stdout.write(_as_json("", code) + "\n")
        raise


def _code_of(end: BaseException) -> int:
    """Of one of `ENDS`."""
    if isinstance(end, typer.Exit | TyperException):
        return end.exit_code
    assert isinstance(end, SystemExit), "nothing else is caught as an end"
    if end.code is None:
        return GOOD
    return end.code if isinstance(end.code, int) else FAILED


def _as_json(said: str, code: int) -> str:
    """What is JSON stays what it is."""
    with contextlib.suppress(ValueError):
        if isinstance(told := foreign.loads(said), dict | list):
            return json.dumps(told, indent=2)
    return json.dumps({"exit_code": code, "lines": said.splitlines()}, indent=2)


def _as_typed(said: str, parameters: list[Any], given: Mapping[str, object]) -> str:
    """The sentence with `--no-guide` where that is how `--guide` was typed."""
    for each in parameters:
        if each.param_type_name == "option" and each.secondary_opts and given.get(each.opts[0]) is False:
            said = said.replace(each.opts[0], each.secondary_opts[0])
    return said


def _arguments(command: TyperCommand) -> Iterator[Any]:
    return (each for each in command.params if each.param_type_name == "argument")


_ENDLESS: Final = 10**7
"""Whoever needs so many knows it."""
_KINDS: Final = {"int": "N", "float": "SECONDS", "str": "TEXT", "path": "PATH", "Path": "PATH", "UUID": "UUID"}


def _in_plain_words(ctx: Any, parameters: list[Any]) -> None:
    """For help: what follows an option as a person would say it: `N` of an `<int range>`, `TEXT` of a `<list[str]>`.
    What an argument is says its name.
    """
    for each in parameters:
        if each.param_type_name == "argument":
            each.display_type_rich = lambda **_: ""
        elif each.metavar is None and not each.is_flag:
            kind = each.display_type_rich(ctx=ctx).strip("<>").removesuffix(" range")
            each.metavar = _KINDS.get(kind.removeprefix("list[").removesuffix("]"))
        each._get_number_range_help_str = partial(_bounds, each.min, each.max)  # noqa: SLF001 -- it has no other way
        each._get_default_string = partial(_default, each._get_default_string)  # noqa: SLF001 -- the same


def _bounds(least: float | None, most: float | None) -> str | None:
    """Of a number, as scenarios write ranges; without a bound that only keeps figures from overflowing."""
    if most is not None and most < _ENDLESS:
        return f"{_figure(least or 0)}..{_figure(most)}"
    return f"at least {_figure(least)}" if least else None


def _default(shown: Callable[..., str], **given: Any) -> str:
    """Nothing of what is off unless it is asked for."""
    value = given["default_value"]
    return "" if value is False else _figure(value) if isinstance(value, float) else shown(**given)


def _piece(argument: Any) -> str:
    name = argument.metavar.strip("[]").removesuffix("...")
    several = "..." if argument.nargs != 1 else ""
    return f"{name}{several}" if argument.required else f"[{name}]{several}"


class Group(_Complains, TyperGroup):
    """Commands by name with their whole summaries, under the headings of their program."""

    headings: Mapping[str, Sequence[str]] = {}
    """What comes first in the list of commands, and in which order; the rest is under `Commands`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # typer's `no_args_is_help` is a complaint
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        with _told_as_json("--json" in args):
            return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows[name] = (name, (command.help or "").partition("\n\n")[0].replace("\n", " "))
        wide = max(map(len, rows), default=0)
        for heading, names in [*self.headings.items(), ("Commands", list(rows))]:
            under = [rows.pop(name) for name in names if name in rows]
            if under:
                with formatter.section(heading):
                    formatter.write_dl([(f"{name:{wide}}", said) for name, said in under])


def installed() -> str:
    """Of whichever program: they come together."""
    from importlib.metadata import version  # noqa: PLC0415 -- it reads e-mail, and few ask

    return f"sim-sled {version('sim-sled')}"


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(installed())
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="print the version")]
"""For the callback of a program."""
LinesAsJson = Annotated[bool, typer.Option("--json", help="print JSON: the exit code, and the lines")]


def manual(app: App, program: str) -> str:
    """Every command with its help, and the exit codes, as Markdown."""
    parts = [f"# {program}", "", "Exit codes of every command:", "", exit_codes()]
    for path, command in walk(app):
        name = " ".join([program, *path])
        with command.make_context(name, [], resilient_parsing=True, **SETTINGS) as ctx:
            parts += [f"## {name}", "", "```", command.get_help(ctx), "```", ""]
    return "\n".join(parts)


def walk(app: App) -> Iterator[tuple[list[str], Any]]:
    """Every command of a program, groups too, by the words that lead to it."""

    def below(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
        yield path, command
        for name, each in getattr(command, "commands", {}).items():
            yield from below(each, [*path, name])

    app.all_wanted()
    return below(typer.main.get_command(app), [])


class App(typer.Typer):
    """A program, or a group of its commands. Each command is described to typer when that is wanted: of a program
    with dozens that is work for the one that is called, and for whoever lists them.
    """

    only: str | None = None
    """The command that was called; None: all are wanted."""

    def __init__(self, headings: Mapping[str, Sequence[str]] | None = None, **more: Any) -> None:
        self._commands: dict[str, Callable[[], CommandInfo]] = {}
        group = type("Group", (Group,), {"headings": headings or {}})
        # plain help: tables cut long option names
        super().__init__(cls=group, rich_markup_mode=None, context_settings=SETTINGS, **more)

    def command(self, name: str | None = None, **more: Any) -> Callable[[Any], Any]:
        """See `typer.Typer.command`; with `--json` and `--version`."""
        settings: dict[str, Any] = {"cls": Command, "context_settings": SETTINGS} | more

        @cache
        def described(function: Any) -> CommandInfo:
            alone = typer.Typer()
            alone.command(name, **settings)(_with_manners(function))
            return alone.registered_commands[0]

        def decorate(function: Any) -> Any:
            self._commands[name or get_command_name(function.__name__)] = partial(described, function)
            return function

        return decorate

    @property
    def registered_commands(self) -> list[CommandInfo]:
        """What typer makes commands of."""
        return [described() for name, described in self._commands.items() if self.only in (None, name)]

    @registered_commands.setter
    def registered_commands(self, _none: list[CommandInfo]) -> None:
        """Typer begins with none."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Runs what `sys.argv` says."""
        self.all_wanted()
        called = next(iter(sys.argv[1:]), "")
        groups = {group.name: group.typer_instance for group in self.registered_groups}
        if called in self._commands or called in groups:
            self.only = called
            for name, group in groups.items():
                if isinstance(group, App) and name != called:
                    group.only = ""  # none of its own
        return super().__call__(*args, **more)

    def all_wanted(self) -> None:
        """Whatever was called, commands are to be listed."""
        self.only = None
        for group in self.registered_groups:
            if isinstance(group.typer_instance, App):
                group.typer_instance.all_wanted()


def _with_manners(function: Callable[..., Any]) -> Callable[..., Any]:
    """With the options that every command has, but for those that it has itself."""
    parameters = _parameters(function)
    own_json = next((each.name for each in parameters if "--json" in _options(each.annotation)), None)
    more = {"_version": Version} | ({} if own_json else {"_lines_as_json": LinesAsJson})
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)
        for name, hint in more.items()
    ]

    @wraps(function)
    def command(*, _version: bool, _lines_as_json: bool = False, **given: Any) -> Any:
        if own_json is not None and given[own_json]:
            return _answered(function, given)
        if not _lines_as_json:
            return function(**given)
        said, code = io.StringIO(), GOOD
        with _told_as_json(True), contextlib.redirect_stdout(said):
            try:
                function(**given)
            except (typer.Exit, SystemExit) as end:
                code = _code_of(end)
        sys.stdout.write(_as_json(said.getvalue(), code) + "\n")
        raise typer.Exit(code)

    return _with_parameters(command, parameters)


def _options(hint: Any) -> list[str]:
    """The option names in an annotation; the first is where a default would be (typer)."""
    found = []
    for each in getattr(hint, "__metadata__", ()):
        found += [*(getattr(each, "param_decls", None) or ()), getattr(each, "default", None)]
    return [each for each in found if isinstance(each, str) and each.startswith("--")]
