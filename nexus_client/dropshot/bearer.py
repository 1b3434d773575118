"""Bearer tokens of control APIs: where one comes from, and whether a request carries it.

Read next: dropshot/control.py.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

from nexus_client.dropshot.text import SocketAddress

FILE_BYTES_MAX: Final = 4096
"""Of a token file: a device that has no end is no token."""


class BadToken(ValueError):
    """There is none where one is needed, or it can be none. Text: a sentence for the person who started this."""


def token_from(text: str | None, file: Path | None) -> str | None:
    """The token given by option or environment, or the first line of a file; None if none is. Raises `BadToken`.

    An empty one is refused: whoever gives it believes that something is protected.
    """
    if file is not None:
        if text is not None:
            raise BadToken("a control token and a file with one are given; one of them is enough")
        try:
            with file.open("rb") as opened:
                text = opened.read(FILE_BYTES_MAX).decode().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadToken(f"cannot read a token from {file}: {getattr(error, 'strerror', None) or error}") from None
    if text is None:
        return None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise BadToken("the control token is empty or not printable ASCII without blanks")
    return text


def require_token(address: SocketAddress, token: str | None) -> None:
    """Raises `BadToken` if a control API at `address` would be open to the network."""
    if not token and not address.is_loopback:
        raise BadToken(f"the control API on {address} is beyond loopback and needs a token")


def carries(authorization: str | None, token: str) -> bool:
    """Whether the header is `Bearer TOKEN`. The scheme's case does not count; a bare token is none."""
    scheme, _, given = (authorization or "").partition(" ")
    # bytes: what is not UTF-8 compares as different instead of raising
    same = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"
