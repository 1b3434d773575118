"""The command as a person meets it: full disks, closed streams, Ctrl-C, foreign text, odd locales."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from support import processes
from support.command import in_process

from sim_sled.cli.scenario import _counting

REPOSITORY = Path(__file__).parents[2]
WITHIN_S = 60
"""Nothing here takes a tenth of it, on a machine that does nothing else."""
SMALL = "version: 1\nload:\n- at: 0s\n  create: {hostname: a, count: 1}\n"
FAILS = (
    f"{SMALL}expect:\n- for: {{hostname: a}}\n  after: {{state: running}}\n  within: 1s\n  that: {{vmm: failed}}\n"
)
LONG = f"""{SMALL}- every: 1s
  from: 0s
  to: 100h
  churn: {{population: 40, create: 6, stop: 2, start: 1, reboot: 2, delete: 2}}
expect:
- for: {{hostname: a}}
  after: {{state: running}}
  within: 99h
  that: {{vmm: failed}}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(FAILS)
    return str(path)


def _shell(line, *words, **env):
    """A line of the shell in which `sim-sled` is the command; `$1` and on are `words`."""
    script = f'sim_sled() {{ "{sys.executable}" -m sim_sled "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script, "-", *words],
        check=False,
        capture_output=True,
        timeout=WITHIN_S,
        cwd=REPOSITORY,
        env={**os.environ, **env},
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("sim_sled run $1 --events /dev/full", id="events"),
        pytest.param("sim_sled run $1 --junit /dev/full", id="junit"),
        pytest.param("sim_sled run $1 --sequence a-0=/dev/full", id="sequence"),
        pytest.param("sim_sled explore $1 --runs 2 --jobs 1 --out /dev/full", id="explore --out"),
        pytest.param("sim_sled check $1 > /dev/full", id="stdout is full"),
        pytest.param("sim_sled scenario list --json > /dev/full", id="a long text on a full stdout"),
        pytest.param("sim_sled run $1 --json > /dev/full", id="JSON on a full stdout"),
        pytest.param("sim_sled --help > /dev/full", id="help on a full stdout", marks=pytest.mark.long),
        pytest.param("sim_sled run $1 >&-", id="stdout closed", marks=pytest.mark.long),
        pytest.param("sim_sled version >&-", id="stdout closed, a short one"),
        pytest.param("sim_sled serve $2 [::1]:0 [::1]:1 >&-", id="serve, stdout closed"),
    ],
)
def test_what_cannot_be_written_is_a_sentence_and_exit_2(small, line):
    if ">&-" in line:
        done = _shell(line, small, "914e42ed-0e74-4719-90d7-21c1b5c132a2")
    else:
        words, _, device = line.replace("$1", small).partition(" > ")
        with Path(device or os.devnull).open("wb") as stdout:
            done = subprocess.run(
                processes.forked("sim_sled", *words.split()[1:]),
                check=False, stdout=stdout, stderr=subprocess.PIPE, timeout=WITHIN_S, cwd=REPOSITORY,
            )  # fmt: skip
    assert done.returncode == 2, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.stderr.count(b"sim-sled: ") == 1


STARTED = ["check FILE", "nosuchcommand"]
"""What is printed on each stream, by a program whose interpreter ends by itself. The others are forked."""


PRINTED_ALIKE = [
    ("sim_sled", "--help"),
    ("sim_sled", "docs"),
    ("sim_sled", "manual"),
    ("sim_sled", "scenario list"),
    ("sim_sled", "scenario schema"),
    ("sim_sled", "check FILE --json"),
    ("propolis_stub", "manual"),
]


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("sim_sled", "version"),
        ("sim_sled", "docs scenario-reference"),
        ("sim_sled", "scenario list --json"),
        ("sim_sled", "check FILE"),
        ("sim_sled", "run FILE"),
        ("sim_sled", "run FILE --trace -"),
        ("sim_sled", "explore FILE --runs 2 --jobs 1"),
        ("sim_sled", "nosuchcommand"),
        ("propolis_stub", "diagram"),
        *(pytest.param(*each, marks=pytest.mark.long) for each in PRINTED_ALIKE),
    ],
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(small, program, line):
    reader, writer = os.pipe()
    os.close(reader)
    words = [small if word == "FILE" else word for word in line.split()]
    heard = {"stdout": writer, "stderr": subprocess.PIPE} if words != ["nosuchcommand"] else {"stderr": writer}
    command = [sys.executable, "-m", program] if line in STARTED else processes.forked(program)
    done = subprocess.run([*command, *words], check=False, timeout=WITHIN_S, **heard)
    os.close(writer)
    assert done.returncode == 141
    said = (done.stderr or b"").lower()  # `run` tells its seed there
    assert b"pipe" not in said
    assert b"traceback" not in said
    assert b"ignored" not in said


@pytest.mark.parametrize(
    "line", ["sim_sled run $1 --seed 3 2>&-", pytest.param("sim_sled check $1 2>&-", marks=pytest.mark.long)]
)
def test_a_closed_stderr_is_told_on_stdout(small, line):
    done = _shell(line, small)
    assert (done.returncode, done.stdout) == (2, b"sim-sled: stderr closed: there is nowhere to write to\n")


ONE_AFTER_THE_OTHER = """
import sys
from sim_sled.__main__ import main
words = sys.argv[1:]
while words:
    sys.argv[1:], words = words[: words.index("and")], words[words.index("and") + 1 :]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""Commands, each with an `and` behind it, in one process."""
FILES_IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "env",
    [
        {**FILES_IN_ASCII, "PYTHONIOENCODING": "ascii"},
        pytest.param(FILES_IN_ASCII, marks=pytest.mark.long),
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.long),
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.long),
    ],
)
def test_files_are_utf_8_and_output_is_no_traceback_whatever_the_locale(tmp_path, env):
    """What is run with a locale is read again with it, and of the others by anybody: they change streams alone."""
    path = tmp_path / "grüße.yaml"
    fault = '{fail: {status: 500, message: "größer 世界"}}'
    rule = f"rules:\n- name: x\n  when: {{request: vmm_register}}\n  do: {fault}\n"
    path.write_text(SMALL + rule, encoding="utf-8")
    trace = tmp_path / "t.trace"
    commands = ["run", path, "--trace", trace, "--events", "-", "and"]
    if "LC_ALL" in env:
        commands += ["replay", trace, "and"]
    words = [sys.executable, "-c", ONE_AFTER_THE_OTHER, *commands]
    done = subprocess.run(words, check=False, capture_output=True, cwd=REPOSITORY, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr.decode()
    assert "LC_ALL" in env or in_process("replay", str(trace))[0] == 0
    assert "größer 世界" in trace.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        'version: 1\n"\\e[2J": 1\n',
        'version: 1\nload:\n- at: "\\e]0;owned\\a"\n',
        'version: 1\nfleet: {policy: "a\\x9b31mb"}\n',
        'version: 1\n"line\\nbreak\\u2028": 1\n',
    ],
)
def test_a_scenario_cannot_speak_to_the_terminal(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    code, *said = in_process("check", str(path))
    assert code == 2
    assert not {letter for letter in "".join(said) if not letter.isprintable()} - {"\n"}


# --- Ctrl-C


def _alive(group):
    """Processes of a group that still run (what has ended and is not yet reaped does not count)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state not in "ZX":
            found.append(stat)
    return found


BEGINS = """
import signal
in_earnest = signal.signal
in_earnest(signal.SIGINT, signal.default_int_handler)  # ignored, and inherited so, if these tests run behind a shell
def first(number, handler):
    before = in_earnest(number, handler)
    print("begun", flush=True)
    signal.signal = in_earnest
    return before
signal.signal = first
from sim_sled.__main__ import main
main()
"""
"""The command, which says when Ctrl-C is its own business: until then Python is starting, and on a machine that has
much else to do that takes any time."""


def _started(*command):
    """In a group of its own, as a terminal does it: Ctrl-C reaches all of the group."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, **pipes)


def _interrupted(process):
    """Exit code, stdout, stderr; and nobody is left."""
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    return process.returncode, out, err.decode()


def _says_so_and_nothing_else(ended):
    code, _, err = ended
    assert code == 130, err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("sim-sled: interrupted")


ENDLESS = {
    "explore": ["explore", "--runs", "1000000", "--jobs", "2"],
    "run --jobs": ["run", "--jobs", "2"],
    "shrink": ["shrink", "--seed", "1"],
}


@pytest.mark.parametrize(
    ("name", "after_s"),
    [
        pytest.param(name, after_s, marks=pytest.mark.long if after_s else ())
        for name in ENDLESS
        for after_s in (0, 0.3, 1.5)
    ],
)
def test_ctrl_c_is_130_and_shown_at_any_moment(tmp_path, name, after_s):
    path, arguments = tmp_path / "long.yaml", ENDLESS[name]
    path.write_text(LONG)
    process = _started(sys.executable, "-c", BEGINS, arguments[0], str(path), *arguments[1:])
    assert process.stdout.readline() == b"begun\n"
    time.sleep(after_s)  # wherever it is by then: that is the point
    _says_so_and_nothing_else(_interrupted(process))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks for children as Linux shows them")
def test_ctrl_c_while_others_play_is_answered_by_one_for_all(tmp_path):
    path, results = tmp_path / "short.yaml", tmp_path / "results"
    path.write_text(SMALL)
    words = ["explore", str(path), "--runs", "1000000", "--jobs", "2", "--results", str(results)]
    process = _started(*processes.forked("sim_sled", *words))
    deadline = time.monotonic() + WITHIN_S

    def until_there_are(lines):
        while not results.exists() or results.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)  # a file has no other way to say that it has grown

    until_there_are(2)
    for player in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(player), signal.SIGINT)  # a terminal sends it to all; they do not hear it
    until_there_are(results.read_bytes().count(b"\n") + 50)
    _says_so_and_nothing_else(_interrupted(process))


def test_ctrl_c_says_how_far_it_came(capsys):
    def interrupted():
        with _counting(1000, "runs") as count:
            count(37, 1)
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(typer.Exit) as end:
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.exit_code == 130
    assert capsys.readouterr().err == "\nsim-sled: interrupted after 37 of 1000 runs, 1 failed\n"
