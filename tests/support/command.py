"""A program that is called in this process, as often as there are tests of its words."""

from functools import cache
from typing import Any
from unittest import mock

import typer
from support import signals
from typer import testing

from nexus_client.dropshot.command_line import App, walk
from propolis_stub.commands import app as propolis_stub
from sim_sled.cli.main import app

PROGRAMS = {"sim-sled": app, "propolis-stub": propolis_stub}


@cache
def everybody() -> list[tuple[str, list[str], Any]]:
    """Program, words and what typer makes of it: all commands, groups too. Made once for all who ask."""
    return [(program, path, command) for program, each in PROGRAMS.items() for path, command in walk(each)]


@cache
def _made(app: typer.Typer) -> Any:
    if isinstance(app, App):
        app.all_wanted()  # whatever was called before
    return typer.main.get_command(app)


class CliRunner(testing.CliRunner):
    """Typer's, which makes all commands of a program anew for each call: thirty milliseconds, more than most tests.

    Not for a program that is added to between two calls. A command that ends leaves signals to nobody, as its process
    is over; this one goes on, and what it starts would not hear Ctrl-C.
    """

    def invoke(self, app: typer.Typer, *arguments: Any, **more: Any) -> testing.Result:
        before = signals.handlers()
        try:
            with mock.patch.object(testing, "_get_command", _made):
                return super().invoke(app, *arguments, **more)
        finally:
            signals.give_back(before)


def in_process(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a `sim-sled` command that starts no server, in this process: starting a program
    takes longer than most of them.
    """
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr
