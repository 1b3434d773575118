"""Values of a command line: what is read without typer's library is what typer makes of it."""

import os
from enum import Enum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import pytest
import typer
from support.command import CliRunner as MadeOnce
from support.rows import in_one_test
from typer.testing import CliRunner

from nexus_client.dropshot import command_line


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


app = command_line.App()


@app.command()
def command(
    text: Annotated[str, typer.Option()] = "",
    identity: Annotated[UUID | None, typer.Option()] = None,
    path: Annotated[Path | None, typer.Option()] = None,
    folder: Annotated[Path | None, typer.Option(file_okay=False)] = None,
    there: Annotated[Path | None, typer.Option(exists=True)] = None,
    number: Annotated[int, typer.Option(min=-5, max=500)] = 7,
    any_number: Annotated[int | None, typer.Option()] = None,
    share: Annotated[float, typer.Option(min=0, max=1e9)] = 1,
    mass: Annotated[float, typer.Option(metavar="KG")] = 2.5,
    off: Annotated[bool, typer.Option("--off/--no-off")] = False,
    colour: Annotated[Colour, typer.Option()] = Colour.RED,
    flag: Annotated[bool | None, typer.Option("--flag/--no-flag")] = None,
    many: Annotated[list[str] | None, typer.Option()] = None,
    numbers: Annotated[list[int] | None, typer.Option()] = None,
    ids: Annotated[list[UUID] | None, typer.Argument()] = None,
) -> None:
    print(
        [text, identity, path, folder, there, number, any_number, share, mass, off, colour, flag, many, numbers, ids]
    )


ID = "914e42ed-0e74-4719-90d7-21c1b5c132a2"
SAID = [
    *(["--number", text] for text in ("0", "-5", "-6", "501", "007", "+3", "1_0", "3.0", "x", "٣", "", " 3")),
    *(["--any-number", text] for text in ("9" * 18, "9" * 19, "-0", "1" * 5000)),
    *(["--share", text] for text in ("0", "1", "1.5", ".5", "1.", "-1", "inf", "nan", "1e3", "0x1", "1,5")),
    *(["--identity", text] for text in (ID, ID.upper(), ID[:-1], ID.replace("-", ""), f"{{{ID}}}", f"{ID}\n", "")),
    *(["--colour", text] for text in ("red", "RED", "blue", "green", "")),
    *(["--path", text] for text in ("", ".", "nowhere", "-", "a\\b", "{here}", "{locked}")),
    *(["--folder", text] for text in (".", "{here}", "nowhere")),
    *(["--there", text] for text in (".", "nowhere")),
    *(["--text", text] for text in ("", "x", "ü")),
    ["--flag"],
    ["--no-flag"],
    ["--many", "a", "--many", ""],
    ["--numbers", "1", "--numbers", "2"],
    ["--numbers", "1", "--numbers", "two"],
    [ID, ID],
    [ID, "x"],
    [],
]  # fmt: skip


@in_one_test("said", SAID, ids=lambda said: " ".join(said)[:40])
def test_a_value_is_what_typer_makes_of_it(said, monkeypatch, tmp_path):
    here, locked = tmp_path / "here", tmp_path / "locked"
    here.touch()
    locked.touch()
    locked.chmod(0)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != locked)  # also where a test may read all
    said = [each.replace("{here}", str(here)).replace("{locked}", str(locked)) for each in said]
    plainly = MadeOnce().invoke(app, said)

    def nothing_is_plain(*_):
        raise command_line._NotPlain

    with monkeypatch.context() as patch:
        patch.setattr(command_line, "_plain", nothing_is_plain)
        by_typer = MadeOnce().invoke(app, said)
    assert (plainly.exit_code, plainly.output) == (by_typer.exit_code, by_typer.output)


@pytest.mark.parametrize("said", [["--identity", "web-1"], [ID, "web-1"]])
def test_what_is_no_uuid_is_named(said):
    done = CliRunner().invoke(app, said)
    assert done.exit_code == 2
    assert "'web-1' is not a UUID\n" in done.output


@in_one_test(
    ("said", "why"),
    [
        (["--number", "x"], "'x' is not a whole number"),
        (["--number", "501"], "501 is more than 500"),
        (["--any-number", "1.5"], "'1.5' is not a whole number"),
        (["--share", "-1"], "-1 is less than 0"),
        (["--share", "soon"], "'soon' is not a number; write 30, 30s or 2m"),
        (["--share", "inf"], "'inf' is not a number; write 30, 30s or 2m"),
        (["--mass", "1s"], "'1s' is not a number"),
        (["--colour", "green"], "'green' is not one of 'red', 'blue'"),
    ],
)
def test_a_value_that_is_wrong_is_told_in_plain_words(said, why):
    done = CliRunner().invoke(app, said)
    assert done.exit_code == 2
    assert done.output == f"command: invalid value for '{said[0]}': {why}\n  help: command --help\n"


@pytest.mark.parametrize(
    ("said", "wrong", "of"),
    [
        (["ome"], "no such command 'ome' (did you mean 'one'?)", ""),
        (["--quick"], "no such option: --quick", ""),
        (["group", "four"], "no such command 'four'", " group"),
        (["group", "three", "--wrod", "x"], "no such option: --wrod (did you mean '--word'?)", " group three"),
        (["two", "x"], "unexpected 'x'", " two"),
        (["two", "--word"], "option '--word' requires an argument", " two"),
        (["needy"], "missing argument 'WORD'", " needy"),
        (["needy", "bad"], "invalid value: bad", " needy"),
    ],
)
def test_whatever_is_typed_wrong_is_told_in_one_shape(said, wrong, of, program):
    program, _ = program

    @program.command()
    def needy(word: Annotated[str, typer.Argument()]) -> None:
        raise typer.BadParameter(word)

    done = CliRunner().invoke(program, said, prog_name="program")
    assert done.output == f"program: {wrong}\n  help: program{of} --help\n"
    assert done.exit_code == 2


def test_who_types_nothing_is_shown_what_there_is(program):
    done = CliRunner().invoke(program[0], ["group"], prog_name="program")
    assert (done.exit_code, done.stdout, done.stderr.partition("\n")[0]) == (
        2, "", "Usage: program group [OPTIONS] COMMAND [ARGS]..."
    )  # fmt: skip
    assert "three" in done.stderr


@in_one_test(("said", "seconds"), [("3", 3.0), ("3s", 3.0), ("250ms", 0.25), ("1m30s", 90.0), ("0.5h", 1800.0)])
def test_seconds_may_have_a_unit_as_durations_have(said, seconds):
    assert f" {seconds}," in CliRunner().invoke(app, ["--share", said]).output


def test_help_has_no_bounds_or_defaults_that_say_nothing():
    said = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "--number N [default: 7; -5..500]" in said
    assert "--share SECONDS [default: 1] --mass KG [default: 2.5] --off / --no-off --" in said


@pytest.fixture
def program():
    """Two commands and a group with one, and the names of those that were described."""
    program, group, described = command_line.App(), command_line.App(), []

    @program.callback()
    def _program() -> None: ...

    def named(name):
        def command(word: Annotated[str, typer.Option()] = "x") -> None:
            print(name, word)

        command.__name__ = name
        return command

    program.command()(named("one"))
    program.command("two")(named("another"))
    group.command()(named("three"))
    program.add_typer(group, name="group")
    return program, described


def test_only_the_command_that_is_called_is_described(program, monkeypatch, capsys):
    program, described = program
    with_manners = command_line._with_manners
    monkeypatch.setattr(
        command_line, "_with_manners", lambda function: described.append(function.__name__) or with_manners(function)
    )

    def call(*words):
        described.clear()
        monkeypatch.setattr("sys.argv", ["program", *words])
        with pytest.raises(SystemExit) as end:
            program()
        return end.value.code, capsys.readouterr().out, list(described)

    assert call("two", "--word", "y") == (0, "another y\n", ["another"])
    assert call("group", "three") == (0, "three x\n", ["three"])
    assert [path for path, _ in command_line.walk(program)] == [[], ["one"], ["two"], ["group"], ["group", "three"]]
    code, told, _ = call("--help")
    assert code == 0
    assert all(f"  {name} " in told or f"  {name}\n" in told for name in ("one", "two", "group"))
    assert call("nothing")[0] == 2


def where(*, host: Annotated[str, typer.Option(help="whose")] = "here", port: Annotated[int, typer.Option()] = 1):
    return f"{host}:{port}"


def test_what_several_commands_take_is_written_once():
    several = command_line.App()

    @several.command()
    @command_line.taking("to", where)
    @command_line.typed(command_line.Needs(("--host",), ("--text",)))
    def ask(to: "NobodyKnowsThisName", *, text: Annotated[str, typer.Option()] = "") -> None:  # noqa: F821
        print(to, text)

    @several.command()
    @command_line.taking("to", where)
    def tell(word: Annotated[str, typer.Argument()], *, to: str) -> None:
        print(word, to)

    def said(*words):
        done = CliRunner().invoke(several, words)
        return done.exit_code, done.output.strip()

    assert said("ask", "--text", "x", "--host", "there") == (0, "there:1 x")
    assert said("tell", "x", "--port", "7") == (0, "x here:7")
    assert said("ask", "--host", "there")[0] == 2  # the rules of a command are those of before
    assert said("tell", "x", "--port", "seven")[0] == 2
