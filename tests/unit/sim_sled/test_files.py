"""files.py and port_file.py: what a person names is written whole, or told in a sentence."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import CliRunner
from support.rows import in_one_test

from nexus_client.dropshot.streams import CannotWrite
from sim_sled import machine, port_file
from sim_sled.cli.main import app
from sim_sled.files import write_text

REPOSITORY = Path(__file__).parents[3]


# --- UTF-8 whatever the locale


def test_text_is_utf_8_and_what_has_no_utf_8_is_written_out(tmp_path):
    path = tmp_path / "f"
    write_text(path, ["ä", "\ud800"])
    assert path.read_bytes() == "ä\\ud800".encode()


@pytest.mark.parametrize("package", ["sim_sled", "nexus_client", "propolis_stub"])
def test_every_text_file_is_opened_with_its_encoding(package):
    """Without one it is the locale's, and a trace written on one machine cannot be read on the next."""
    without = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\b(open|read_text|write_text)\((?![^()]*\bencoding=)", text):  # all others have theirs
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            said = {keyword.arg for keyword in node.keywords}
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            text_mode = name == "open" and words and set(words[-1]) <= set("rwxat+")
            if ((name in {"read_text", "write_text"} and isinstance(node.func, ast.Attribute)) or text_mode) and (
                "encoding" not in said
            ):
                without.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert without == []


# --- full disk


@in_one_test("name", ["/dev/full", "/nonexistent/x", "/", "a\0b"])
def test_what_cannot_be_written_is_a_sentence(name):
    with pytest.raises(CannotWrite, match="cannot write"):
        write_text(Path(name), "text")


# --- port files


def _other_pid():
    """Of a process that lives, and is not this one."""
    return os.getppid()


def test_a_port_file_of_a_living_server_stays_until_the_next_one_has_bound(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"pid": _other_pid(), "address": "[::1]:1"}))
    port_file.prepare(path)
    assert json.loads(path.read_text())["address"] == "[::1]:1"
    with port_file.told(path, {"address": "[::1]:2"}):
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "address": "[::1]:2"}
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [], "it is gone with its server"


def test_a_port_file_that_another_server_has_taken_stays(tmp_path):
    path = tmp_path / "p.json"
    with port_file.told(path, {"address": "[::1]:1"}):
        path.write_text("theirs")
    assert path.read_text() == "theirs"


@in_one_test(
    "text",
    [
        "", "{", "[]", "{}", '{"pid": "x"}', '{"pid": -1}', '{"pid": 0}', '{"pid": 99999999999999999999}',
        '{"pid": null}', "[" * 100_000, '{"pid": ' + "9" * 10_000 + "}", "\x00",
    ],
)  # fmt: skip
def test_a_port_file_of_nobody_is_gone_before_the_next_one_starts(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    port_file.prepare(path)
    assert not path.exists()


def test_a_port_file_of_a_process_that_has_ended_is_gone(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"pid": ended.pid}))
    port_file.prepare(path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["/nonexistent/p.json", "/proc/p.json"])
def test_a_port_file_that_cannot_be_written_is_told_before_anything_starts(name):
    with pytest.raises(OSError, match=r"."):
        port_file.prepare(Path(name))


# --- no IPv6


@pytest.mark.parametrize("number", [99, 97])
def test_a_listener_that_fails_for_want_of_ipv6_says_so(monkeypatch, number):
    monkeypatch.setattr(machine, "has_ipv6", lambda: False)
    assert "no IPv6" in machine.cannot_bind(OSError(number, "cannot assign"))


def test_other_failures_keep_their_reason(monkeypatch):
    monkeypatch.setattr(machine, "has_ipv6", lambda: False)
    assert machine.cannot_bind(OSError(98, "Address already in use")) == "cannot bind: Address already in use"
    monkeypatch.setattr(machine, "has_ipv6", lambda: True)
    assert machine.cannot_bind(OSError(99, "not here")) == "cannot bind: not here"


def test_a_machine_without_the_address_family_has_no_ipv6(monkeypatch):
    def refuse(*_):
        raise OSError(97, "Address family not supported")

    monkeypatch.setattr(machine.socket, "socket", refuse)
    assert not machine.has_ipv6()


def test_a_run_on_sockets_says_so_too_and_what_needs_none(monkeypatch, tmp_path):
    """It ended in a traceback."""

    async def unbound(*_):
        raise OSError(99, "cannot assign requested address")

    monkeypatch.setattr(machine, "has_ipv6", lambda: False)
    monkeypatch.setattr("sim_sled.daemon.on_sockets.play_on_sockets", unbound)
    (tmp_path / "x.yaml").write_text("version: 1\nseed: 1\n")
    result = CliRunner().invoke(app, ["run", str(tmp_path / "x.yaml"), "--clock", "wall"])
    assert result.exit_code == 5
    assert "this machine has no IPv6" in result.stderr
    assert "--clock virtual needs no sockets" in result.stderr
