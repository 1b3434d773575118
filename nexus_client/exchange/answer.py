r"""Reads answers from the bytes of one connection. Pure: no socket, no clock. The grammar is httptools' (llhttp).

What is ours, because the parser leaves it to its user:

* A 204 or 304 has ended with its head, whatever the head promises and whatever follows (RFC 9112 6.3). Older servers
  send `0\r\n\r\n` or a body behind one; reqwest takes it as acknowledged, and so do we.
* Such an answer, bytes behind an answer, two framings at once, or `connection: close` leave the connection unfit for
  another request: `reusable` is False, and nothing that comes later can be taken for the answer to something else.
* Interim answers (1xx but 101) are passed over; there is a limit to them, as to everything.

Read next: exchange/http_client.py.
"""

from __future__ import annotations

from typing import Final

import httptools
from msgspec import Struct

HEAD_BYTES_MAX: Final = 417_792
"""Of status line and headers of one answer, interim ones included: as much as the real agent's library takes."""

BODY_BYTES_MAX: Final = 65_536
"""Of an answer's body, unless asked for more. Error bodies and a sled's info are far below 1 KiB."""

_BODYLESS: Final = frozenset({204, 304})


class BadAnswer(Exception):
    """What came is no answer of HTTP/1."""


class Answer(Struct, frozen=True):
    """An answer. `body` is cut at the reader's limit; `location` is the header of a redirection, if it has one."""

    status: int
    body: bytes = b""
    location: str | None = None


class AnswerReader:
    """Reads the answers of one connection, one after the other; `begin` before each request."""

    __slots__ = (
        "_bad",
        "_body",
        "_body_bytes",
        "_body_max",
        "_done",
        "_framings",
        "_head_bytes",
        "_in_body",
        "_location",
        "_parser",
        "reusable",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # As the real agent's parser: a line may end without CR; of two framings the chunks count (the connection is
        # not used again then).
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_chunked_length=True)
        self.reusable = True
        self.begin(BODY_BYTES_MAX)

    def begin(self, body_max: int) -> None:
        """A request goes out: what comes next is its answer."""
        self._body_max = body_max
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._bad = ""
        self._head_bytes = 0
        self._in_body = False
        self._location: str | None = None
        self._framings = 0
        self._done: Answer | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Bytes as they came; the answer once it is complete. Raises `BadAnswer`."""
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False  # another protocol follows
        except httptools.HttpParserError as error:
            self.reusable = False
            if self._done is None:  # else: what follows the answer is none, and does not matter
                raise BadAnswer(self._bad or str(error)) from None
        if self._done is None and not self._in_body and self._head_bytes > HEAD_BYTES_MAX:
            raise BadAnswer(f"a head of more than {HEAD_BYTES_MAX} bytes")
        return self._done

    def end(self) -> Answer | None:
        """The connection has ended: the answer as far as it came, if its head did. The status counts."""
        self.reusable = False
        if self._done is None and self._in_body:
            self._finish()
        return self._done

    def _finish(self) -> None:
        body = b"".join(self._body)[: self._body_max] if self._body else b""
        self._done = Answer(self._parser.get_status_code(), body, self._location)

    # --- what the parser calls -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done is not None:
            self.reusable = False  # bytes behind the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._done is not None:
            return
        name = name.lower()
        if name == b"location":
            self._location = value.decode("latin-1")
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            self._framings += 1

    def on_headers_complete(self) -> None:
        if self._done is not None:
            return
        status = self._parser.get_status_code()
        if not self._parser.get_http_version().startswith("1."):
            self._bad = "an answer of another HTTP than 1"
            raise ValueError(self._bad)  # ends the parser; told as `BadAnswer` by `feed`
        if 100 <= status < 200 and status != 101:
            return
        self._in_body = True
        if not self._parser.should_keep_alive() or self._framings > (0 if status in _BODYLESS else 1):
            self.reusable = False
        if status == 101:
            self.reusable = False  # whatever comes now is of another protocol
        if status in _BODYLESS or status == 101:
            self._finish()

    def on_body(self, part: bytes) -> None:
        if self._done is not None:
            return
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > self._body_max:
            self.reusable = False  # the rest may be endless: the connection is not worth it
            self._finish()

    def on_message_complete(self) -> None:
        if self._done is None and self._in_body:
            self._finish()
        elif self._done is None:
            self._framings = 0  # an interim answer
