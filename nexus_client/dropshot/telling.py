"""What a program says to a person: one shape for whatever is wrong, and lines that fit a terminal.

    sim-sled: invalid value for '--sleds': 0 is less than 1     who says it, and what is wrong
      help: sim-sled up --help                                  only where how it was typed is what is wrong

Read next: dropshot/command_line.py.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import textwrap
from typing import Final, TextIO

from nexus_client.dropshot.text import shown_lines

_COMMAND: Final = re.compile(r"\s*([a-z]+: )?(sim-sled|propolis-stub) [a-z]")
"""`    again: sim-sled run ...`"""
_EXCERPT: Final = re.compile(r"(?P<head> *\d+ \| )(?P<text>.*)\n(?P<mark> +\| )(?P<before> *)(?P<carets>\^+)\n")
"""`    6 |   do: {dealy: 3s}`, and the line below it with the mark."""


def say(program: str, message: str) -> None:
    """What is wrong, on stderr, in lines that fit a terminal."""
    sys.stderr.write(fitted(shown_lines(f"{program}: {message}") + "\n", sys.stderr))


def reason(error: Exception) -> str:
    """Of what went wrong outside, short: libraries name the address again, or a number of the system's."""
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:  # of the resolver's, whose numbers are others
        return error.strerror
    return str(error) or type(error).__name__


def fitted(text: str, stream: TextIO | None = None) -> str:
    """Sentences for people, broken between words where a terminal would break them within one; in a pipe as they are.
    `stream`: where they go, stdout by default.
    """
    if not (sys.stdout if stream is None else stream).isatty():
        return text
    return wrapped(text, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int) -> str:
    """Lines that are longer than `width` go on a little further in than they begin; commands to paste stay whole. Of
    a line of a file that is marked below, the part around the mark is shown.
    """
    cut = _EXCERPT.sub(lambda excerpt: _around_mark(excerpt, width), text)
    return "".join(_broken(line, width) for line in cut.splitlines(keepends=True))


def _broken(line: str, width: int) -> str:
    bare = line.rstrip("\n")
    if len(bare) <= width or _COMMAND.match(bare):
        return line
    parts = textwrap.wrap(
        bare,
        width,
        subsequent_indent=" " * min(len(bare) - len(bare.lstrip()) + 2, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return "\n".join(parts) + line[len(bare) :]


def _around_mark(excerpt: re.Match[str], width: int) -> str:
    head, text, mark, before, carets = excerpt.groups()
    room = width - len(head)
    if len(text) <= room or room < 1:
        return excerpt[0]
    at = len(before)
    skipped = 0 if at + len(carets) <= room else max(0, at - room // 3)
    shown = text[skipped : skipped + room]
    under = " " * (at - skipped) + carets
    return f"{head}{shown}\n{mark}{under[:room]}\n"
