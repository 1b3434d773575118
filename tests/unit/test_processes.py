"""Processes of tests die with their test, and with pytest itself. Those that are forked are like any other."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes

FOR_EVER = "import signal, sys; print('up', flush=True); signal.pause()"
PARENT = """
import asyncio, sys
sys.path.insert(0, "tests")
from support import processes

async def main():
    child = await processes.start(*eval(sys.argv[1]))
    await child.stdout.readline()
    server = [processes._pytests_own()[0].pid] if "forked" in sys.argv[1] else []
    print(child.pid, *server, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""

forks = pytest.mark.skipif(processes.interpreter() is sys.executable, reason="programs are real: see `interpreter`")


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # dead, and not yet waited for by whoever inherited it


async def test_what_a_test_leaves_running_is_ended_after_it():
    process = await processes.start(sys.executable, "-c", FOR_EVER)
    await process.stdout.readline()
    assert processes.end_all() == [process.pid]
    assert await process.wait() == -signal.SIGKILL
    assert processes.end_all() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel tells a child that its parent is gone")
@pytest.mark.parametrize(
    "command", ['(sys.executable, "-m", "told")', pytest.param('processes.forked("told")', marks=forks)]
)
async def test_a_process_dies_with_a_pytest_that_is_killed(tmp_path, monkeypatch, command):
    (tmp_path / "told.py").write_text(FOR_EVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parent = await processes.start(sys.executable, "-c", PARENT, command)
    children = [int(word) for word in (await parent.stdout.readline()).split()]
    assert len(children) == 1 + ("forked" in command), "and the server"
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(20):
        while any(map(is_running, children)):
            await asyncio.sleep(0.01)


# --- forked programs

PROBE = """
import atexit, gc, json, os, random, resource, signal, sys, threading, time

def stream(of):
    return [of.name, of.mode, of.encoding, of.errors, of.newlines, of.line_buffering, of.write_through,
            getattr(of.buffer, "raw", of.buffer).name, type(of.buffer).__name__, of.isatty()]

def seen():
    mask = os.umask(0)
    os.umask(mask)
    yield "argv", [sys.argv, sys.orig_argv, sys.path, list(map(str, sys.flags)), sys.warnoptions, sys.executable]
    yield "main", [__name__, __spec__.name, __file__, sys.modules["__main__"].__dict__ is globals()]
    yield "streams", [stream(sys.stdin), stream(sys.stdout), stream(sys.stderr), sys.__stdout__ is sys.stdout]
    yield "environment", sorted(os.environ.items())
    yield "time", time.tzname
    yield "folder", [os.getcwd(), mask]
    yield "descriptors", sorted(os.listdir("/proc/self/fd"))
    yield "processes", [os.getppid(), os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid(), os.nice(0)]
    yield "signals", [str(signal.getsignal(each)) for each in sorted(signal.valid_signals())]
    yield "mask", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    yield "limits", [resource.getrlimit(each) for each in range(16)]
    yield "threads", [threading.current_thread() is threading.main_thread(), threading.active_count()]
    yield "collector", [gc.isenabled(), gc.get_threshold(), gc.garbage]

json.dump({"own": [random.random(), os.getpid()], **dict(seen())}, sys.stdout)
"""
ENDS = {
    "of itself": "pass",
    "by a number": "sys.exit(3)",
    "by a number that does not fit": "sys.exit(-1)",
    "with a sentence": "sys.exit('no')",
    "with something else": "sys.exit((1.5, 'no'))",
    "by an error": "1 / 0",
    "at once": "print('unheard'); os._exit(7)",
    "by a signal": "os.kill(os.getpid(), signal.SIGTERM)",
    "by Ctrl-C": "signal.raise_signal(signal.SIGINT)",
    "by nobody": "os.abort()",
    "with a reader that has gone": "signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.close(1); print('unheard')",
    "after its threads": "threading.Timer(0.01, print, ['a thread']).start()",
    "after what it has promised": "atexit.register(print, 'promised'); atexit.register(lambda: 1 / 0)",
}


def in_earnest(command):
    return [sys.executable, *command[1:]]


@pytest.fixture
def both(tmp_path):
    """Runs a module of this text as a forked program and as a real one."""

    def run(text, *words, **options):
        (tmp_path / "told.py").write_text(f"import atexit, os, signal, sys, threading\n{text}")
        command = processes.forked("told", *words)
        common = {"capture_output": True, "text": True, "cwd": tmp_path, "stdin": subprocess.DEVNULL, "timeout": 60}
        common["env"] = dict(os.environ)  # readline says the size of the terminal behind Python's back
        return [subprocess.run(each, check=False, **common, **options) for each in (command, in_earnest(command))]

    return run


@pytest.mark.parametrize("session", [False, True])
def test_a_forked_program_finds_what_a_real_one_finds(both, session, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo" if session else "America/Lima")  # not both of the server
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:/tmp:somewhere")
    done = both(PROBE, "one", "--two", start_new_session=session)
    forked, real = (json.loads(each.stdout) for each in done)
    first, second = forked.pop("own"), real.pop("own")
    assert not set(first) & set(second)
    assert {name: [forked[name], real[name]] for name in real if forked[name] != real[name]} == {}


@pytest.mark.parametrize("how", ENDS)
def test_a_forked_program_ends_as_a_real_one_ends(both, how):
    forked, real = both(f"print('said')\nprint('told', file=sys.stderr)\n{ENDS[how]}")
    assert (forked.returncode, forked.stdout) == (real.returncode, real.stdout)
    assert forked.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]
    assert ("Traceback" in forked.stderr) == ("Traceback" in real.stderr)


@pytest.mark.long
def test_a_program_of_ours_says_the_same_both_ways():
    for words in (["explain", "happy", "--seed", "1"], ["ps", "--at", "[::1]:1"]):  # one is good, and one fails
        command = processes.forked("sim_sled", *words)
        forked, real = (
            subprocess.run(each, capture_output=True, check=False, timeout=60)
            for each in (command, in_earnest(command))
        )
        assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


@pytest.fixture
def changed():
    """This process, in all that children inherit; as it was afterwards."""
    limit, mask = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o077)
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[0] - 1, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    signal.signal(signal.SIGUSR1, handler)
    os.umask(mask)


def test_what_has_changed_in_this_process_since_is_inherited_too(both, changed):
    seen = (
        "import resource; print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_NOFILE), "
        "signal.getsignal(signal.SIGUSR1), signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    forked, real = both(seen)
    assert forked.stdout == real.stdout
    assert forked.stdout.startswith("0o77 "), "it is not as the server began"


@forks
@pytest.mark.parametrize(
    "options",
    [
        {"cwd": "/nowhere"}, {"env": {"LC_ALL": "C"}}, {"env": {"PYTHONHASHSEED": "1"}}, {"env": {"A=B": "C"}},
        {"env": {"A": "B\0"}}, {"env": {"A": 1}}, {"pass_fds": [0]}, {"close_fds": False}, {"preexec_fn": print},
        {"umask": 0}, {"process_group": 0}, {"user": 0}, {"executable": sys.executable},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_forked_program_cannot_be_given_is_an_error(options):
    wrong = FileNotFoundError if "cwd" in options else TypeError if options == {"env": {"A": 1}} else ValueError
    with pytest.raises(wrong):
        subprocess.run(processes.forked("sim_sled", "version"), check=False, **options)
    assert subprocess.run(processes.forked("sim_sled", "version"), check=False, capture_output=True).returncode == 0


async def test_a_forked_program_can_be_talked_to_and_ended(tmp_path):
    (tmp_path / "told.py").write_text("for line in iter(input, 'end'): print(line.upper(), flush=True)")
    process = await processes.start(*processes.forked("told"), stdin=asyncio.subprocess.PIPE, cwd=tmp_path)
    process.stdin.write(b"hello\n")
    assert await process.stdout.readline() == b"HELLO\n"
    assert processes.end_all() == [process.pid]
    assert await process.wait() == -signal.SIGKILL


def test_what_a_program_has_left_to_itself_is_no_child_of_pytest(tmp_path):
    """A detached rack would be a zombie when it has ended, and `down` would wait for it."""
    text = "import os\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\nos.read(0, 1)"
    (tmp_path / "told.py").write_text(text)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(processes.forked("told"), cwd=tmp_path, **pipes) as process:
        left = int(process.stdout.readline())
        assert process.wait(60) == 0
        parent = int(Path(f"/proc/{left}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent != os.getpid()


STARTER = """
import subprocess
if sys.argv[1:] == ["started"]:
    print(os.getppid(), "sim_sled.daemon.serve" in sys.modules)
    sys.exit(7)
started = subprocess.Popen([sys.executable, "-m", "told", "started"])
assert started.wait(60) == 7
print(os.getpid())
"""


def test_what_a_forked_program_starts_is_its_child_and_forked_too(both):
    for done, forked in zip(
        both(STARTER, "--detach"), (processes.interpreter() is not sys.executable, False), strict=True
    ):
        (parent, imported), (starter,) = (line.split() for line in done.stdout.splitlines())
        assert (parent, imported) == (starter, str(forked)), done.stderr


@forks
def test_what_a_forked_program_has_left_running_outlives_it(tmp_path):
    text = "import os, subprocess, sys\nif sys.argv[1:]: subprocess.Popen([sys.executable, '-m', 'told'])\nelse: "
    (tmp_path / "told.py").write_text(f"{text}print(os.getpid(), flush=True); os.read(0, 1); print('ends')")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(processes.forked("told", "--detach"), cwd=tmp_path, **pipes) as process:
        left = int(process.stdout.readline())
        assert process.wait(60) == 0
        assert is_running(left)
        process.stdin.close()
        assert process.stdout.read() == "ends\n"
