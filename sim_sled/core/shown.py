"""Foreign text on its way to a person: one function, wherever text of Nexus, a scenario or a file is printed.

A terminal obeys what it is sent: an escape sequence in Nexus's error message could clear the screen, rename the
window, or hide a line behind a carriage return. In a file with a line per happening a line break forges one.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""`text` with everything written out that a person cannot see or a terminal obeys: `\x1b`, `\n`, `\u202e`.

    Printable text of any language stays as it is; `repr` would also quote and double backslashes.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
