"""`sim-sled` and `propolis-stub` as a shell finds them, forked: each is a line of Python that hands its words to us.

with forked_commands() as folder:        # the first of the shell's PATH
    subprocess.run(["sh", "-c", "sim-sled version | cat"], env={**os.environ, "PATH": f"{folder}:..."})
"""

import ast
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from support import processes

PROGRAMS = {"sim-sled": "sim_sled", "propolis-stub": "propolis_stub"}
ASKS = """#!{python} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
    asked.connect({door!r})
    told = repr(({program!r}, sys.argv[1:], os.getcwd(), dict(os.environ)))
    socket.send_fds(asked, [told.encode()], [0, 1, 2])
    sys.exit(int(asked.recv(9)))
"""
REQUEST_BYTES_MAX = 1 << 20


@contextlib.contextmanager
def forked_commands() -> Iterator[str]:
    """A folder with the commands, as long as somebody answers them. They end as a shell tells of it: 128 and more is
    a signal.
    """
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        folder = Path(name)  # not pytest's: the name of a socket is short
        door.bind(str(folder / "door"))
        door.listen()
        for command, program in PROGRAMS.items():
            text = ASKS.format(python=sys.executable, door=str(folder / "door"), program=program)
            (folder / command).write_text(text)
            (folder / command).chmod(0o755)
        answering = threading.Thread(target=_answer, args=[door])
        answering.start()
        try:
            yield name
        finally:
            door.shutdown(socket.SHUT_RDWR)
            answering.join()


def _answer(door: socket.socket) -> None:
    """All who ask, some of them at a time, until the door is shut."""
    while True:
        try:
            asked, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_play, args=[asked], daemon=True).start()


def _play(asked: socket.socket) -> None:
    """One command, to its end."""
    with asked:
        told, streams, _, _ = socket.recv_fds(asked, REQUEST_BYTES_MAX, 3)
        program, words, cwd, env = ast.literal_eval(told.decode())
        try:
            code = subprocess.call(
                processes.forked(program, *words), cwd=cwd, env=env,
                **dict(zip(("stdin", "stdout", "stderr"), streams, strict=True)),
            )  # fmt: skip
        finally:
            for stream in streams:
                os.close(stream)
        with contextlib.suppress(BrokenPipeError):  # who asked was ended
            asked.send(str(code if code >= 0 else 128 - code).encode())
