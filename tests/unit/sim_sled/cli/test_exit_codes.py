"""The exit codes of `docs/commands.md` for what a person gets wrong: 2, one line, no traceback."""

from concurrent.futures.process import BrokenProcessPool
from io import BytesIO

import pytest
import typer
from support.command import CliRunner
from support.rows import in_one_test

from nexus_client.dropshot.text import peer_address
from sim_sled.cli import control_client, surface
from sim_sled.cli.main import app
from sim_sled.cli.nexus import beside, loopback_beside

VMM = "11111111-1111-4111-8111-111111111111"


def sim_sled(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@in_one_test(
    "words",
    [
        pytest.param(["nowhere"], id="internal"),
        pytest.param(["example.org:80"], id="a name"),
        pytest.param(["[::1]:0", "--lockstep", "x"], id="lockstep"),
        pytest.param(["[::1]:0", "--control", "x"], id="control"),
    ],
)
def test_a_bad_address_of_the_nexus_model_is_bad_input(words):
    result = sim_sled("nexus", *words)
    assert result.exit_code == 2
    assert "is no address; write [::1]:12221" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--control", "x", "invalid value for '--control': 'x' is not a socket address"),
        ("--control", "0.0.0.0:0", "the control API on 0.0.0.0:0 is beyond loopback and needs a token"),
        ("--control-token", "", "the control token is empty"),
        ("--control-token", "a b", "the control token is empty or not printable ASCII without blanks"),
    ],
)
def test_a_control_api_that_cannot_be_is_told_before_any_sled_is_registered(monkeypatch, option, value, told):
    """A rack was started first; and with an empty token it stood open."""
    started = []
    monkeypatch.setattr("sim_sled.daemon.loop.run", lambda work: started.append(work.close()) or 0)
    result = sim_sled("up", option, value)
    assert (result.exit_code, started) == (2, [])
    assert told in result.stderr


def test_a_daemon_that_is_not_there_is_told_in_plain_words():
    result = sim_sled("ps", "--at", "[::1]:1")
    assert result.exit_code == 3
    assert result.stderr == "sim-sled: no control API at [::1]:1: Connection refused\n"


@in_one_test("command", ["ps", "bench"])
@in_one_test("token", ["two\nlines", "bläh", "", "a b"])
def test_a_token_that_no_request_can_carry_is_bad_input(command, token):
    result = sim_sled(command, "--token", token)
    assert result.exit_code == 2
    assert "the control token is empty or not printable ASCII without blanks" in " ".join(result.stderr.split())


@in_one_test(
    ("written", "meant"),
    [
        ("[::1]:12221", "[::1]:12221"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("nexus:12221", "nexus:12221"),
        ("http://nexus:12221", "nexus:12221"),
        ("http://Nexus.Example.org:12221/", "nexus.example.org:12221"),
        ("HTTP://[fd00::1]:1", "[fd00::1]:1"),
    ],
)
def test_a_peer_is_an_address_a_name_or_a_url(written, meant):
    assert peer_address(written) == meant


@in_one_test(
    "written",
    ["", "nexus", "nexus:", "nexus:0", "nexus:70000", "nexus:-1", "-nexus:80", "a..b:80", "300.1.1.1:80", "[::1]:0",
     "https://nexus:1", "http://nexus:1/path", "nexus:12221:1", "ne xus:80", "\n:80", "x" * 300 + ":80", "nexus:１"],
)  # fmt: skip
def test_what_is_no_peer_is_bad_input(written):
    with pytest.raises(ValueError, match=r"address|port 0|http"):
        peer_address(written)
    result = sim_sled("up", "--nexus", written)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert sim_sled("serve", VMM, "[::1]:0", written).exit_code == 2


def test_the_models_other_listeners_follow_its_address():
    """A machine without IPv6 has no [::1]."""
    assert loopback_beside("127.0.0.1:12221") == "127.0.0.1:0"
    assert loopback_beside("0.0.0.0:12221") == "127.0.0.1:0", "nobody else may use the control API without a token"
    assert loopback_beside("[fd00::1]:12221") == "[::1]:0"
    assert beside("127.0.0.1:12221", port=0) == "127.0.0.1:0"
    assert beside("[fd00::1]:12221", port=0) == "[fd00::1]:0"


OF_A_NAME = [["why"], ["log"], ["fire"], ["release"], ["inject", ..., "failed"], ["expect", ..., "running"]]


@in_one_test("words", OF_A_NAME, ids=lambda words: words[0])
@in_one_test("name", ["a b", "a/b", "é", "..", "a\nb", "%zz", "?", "\x00"])
def test_any_name_can_be_asked_for(words, name):
    """Spaces and letters beyond ASCII were no path, and the command ended with a traceback."""
    named = [name if word is ... else word for word in words] + ([] if ... in words else [name])
    result = sim_sled(*named, "--at", "[::1]:1")
    assert (result.exit_code, result.stderr) == (3, "sim-sled: no control API at [::1]:1: Connection refused\n")


@in_one_test("words", OF_A_NAME, ids=lambda words: words[0])
@in_one_test("name", ["", " ", "\t\n"])
def test_an_empty_name_is_bad_input(words, name):
    """It used to ask for the list of all, and could not read the answer."""
    named = [name if word is ... else word for word in words] + ([] if ... in words else [name])
    result = sim_sled(*named, "--at", "[::1]:1")
    assert result.exit_code == 2
    assert "an empty text is nobody's name" in result.stderr


@in_one_test("text", ["[" * 100_000, "", "[]", '{"control": 5}', "null", '"x"', "\x00"])
@in_one_test("words", [["ps"], ["port", "control"]], ids=["ps", "port"])
def test_what_is_no_port_file_is_bad_input_however_deep(words, text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # no rack runs there
    file = tmp_path / "p.json"
    file.write_text(text)
    result = sim_sled(*words, "--port-file", file)
    assert result.exit_code in {2, 3} or result.stdout == "5\n"
    assert isinstance(result.exception, SystemExit | None)


def test_a_port_file_without_a_control_api_does_not_lead_to_another_rack(tmp_path, monkeypatch):
    """A Propolis of its own has none, unless it was asked for."""
    monkeypatch.setattr(control_client.racks, "find", lambda _: pytest.fail("another one is asked"))
    file = tmp_path / "p.json"
    file.write_text('{"propolis": "[::1]:1", "control": null}')
    result = sim_sled("inject", "web", "failed", "--port-file", file)
    assert (result.exit_code, result.stderr) == (2, f"sim-sled: {file}: whoever wrote it has no control API\n")


def test_the_address_of_a_page_that_is_not_there_is_not_told():
    result = sim_sled("page", "--at", "127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "sim-sled: no control API at 127.0.0.1:1: Connection refused\n"


def test_a_hand_off_that_nobody_takes_says_why_and_promises_nothing(monkeypatch):
    monkeypatch.setattr(
        "sim_sled.companions.handoff.password_hash", lambda _: "$argon2id$"
    )  # which takes two seconds
    result = sim_sled("handoff", VMM, "[::1]:0", "127.0.0.1:1", "1")
    assert result.exit_code == 3
    assert result.stderr.endswith("sim-sled: the lockstep API at 127.0.0.1:1 does not answer (Connection refused)\n")


@in_one_test("written", ["é", "", "nowhere", "[::1]", "[::1]:99999", "localhost:0", "127.0.0.1:0"])
@in_one_test("more", [(), ("--record", "there"), ("--sleds", "2", "--workers", "2")], ids=len)
def test_where_sleds_listen_is_an_address_before_anything_starts(written, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sim_sled("up", "--listen", written, *more)
    assert result.exit_code == 2
    assert "invalid value for '--listen'" in result.stderr
    assert not list(tmp_path.iterdir())


EVERY_QUESTION = [
    ["ps"], ["why", "web"], ["log", "web"], ["expect", "web", "running"], ["inject", "web", "failed"], ["rules"],
    ["ready"], ["fire", "now"], ["release", "held"], ["pause"], ["resume"], ["step"], ["until", "5s"], ["snapshot"],
    ["scale", "--sleds", "2"],
]  # fmt: skip


@in_one_test("words", EVERY_QUESTION, ids=lambda words: words[0])
@in_one_test("answer", ["null", '"x"', "[1]", '{"else": 1}'])
def test_a_server_that_answers_something_else_is_no_control_api(monkeypatch, words, answer):
    """Somebody else listens there: it used to end in a traceback."""
    monkeypatch.setattr(control_client, "_open", lambda *_: BytesIO(answer.encode()))
    result = sim_sled(*words, "--at", "[::1]:1")
    assert result.exit_code == 3
    assert result.stderr.startswith(
        ("sim-sled: no control API at [::1]:1: Expected `", "sim-sled: no control API at [::1]:1: Object missing")
    )


def test_fields_of_a_newer_daemon_are_shown(monkeypatch):
    monkeypatch.setattr(control_client, "_open", lambda *_: BytesIO(b'{"fired": "now", "more": 1}'))
    assert '"more": 1' in sim_sled("fire", "now", "--json", "--at", "[::1]:1").stdout


@pytest.mark.parametrize("port", [[], ["0"], ["12232"]], ids=["no port", "port 0", "a port"])
def test_the_command_line_of_the_originals_how_to_starts_a_sled(monkeypatch, port):
    """With `--rss-*` options and no lockstep port: nothing is handed over, and nothing is refused."""
    started = []
    monkeypatch.setattr("sim_sled.daemon.serve.run", lambda *args: started.append(args[2]) or 0)
    words = ["--rss-nexus-external-addr", "127.0.0.1:12220", "--rss-external-dns-internal-addr", "[::1]:5353",
             "--rss-internal-dns-dns-addr", "[::1]:3535"]  # fmt: skip
    result = sim_sled("serve", VMM, "[::1]:0", "[::1]:12221", *port, *words)
    assert result.exit_code == 0, result.stderr
    [serving] = started
    assert (serving.handoff is not None) == (port == ["12232"])


def test_a_command_whose_process_is_ended_from_outside_says_so_and_how_far_it_came(capsys):
    """`run --jobs`, `shrink`, `explore --shrink`: the pool of such processes only says that it is broken."""
    with pytest.raises(typer.Exit) as end, surface.interruptible(lambda: "3 of 9 runs"):
        raise BrokenProcessPool
    assert end.value.exit_code == 3
    told = capsys.readouterr().err
    assert told.startswith("sim-sled: a process that plays runs was ended")
    assert told.endswith("(after 3 of 9 runs)\n")
