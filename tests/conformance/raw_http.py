"""A HTTP/1.1 client that sends exactly what it is given: no path is normalised, no header added or renamed.

One request at a time, over one kept connection that is opened again when the server has closed it.
"""

import asyncio
import contextlib

import attrs

_HEAD_BYTES_MAX = 65_536
_ANSWER_BYTES_MAX = 64 * 2**20


@attrs.frozen
class RawAnswer:
    status: int
    headers: dict[str, str]  # names in lower case; repeated ones joined by ", "
    body: bytes


class RawClient:
    """Requests to one `host:port` (`[v6]:port`)."""

    def __init__(self, address: str, timeout_s: float = 60.0):
        self.address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._timeout_s = timeout_s  # Nexus gives up after 60 s
        self._stream = None

    async def request(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> RawAnswer:
        """`headers` go out as they are, after `host` and before `content-length`."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {self.address}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method in {"PUT", "POST", "PATCH"}:
            lines.append(f"content-length: {len(body or b'')}")
        head = "\r\n".join([*lines, "", ""]).encode()
        async with asyncio.timeout(self._timeout_s):
            try:
                return await self._exchange(method, head + (body or b""))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    async def aclose(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].close()
            with contextlib.suppress(ConnectionError):
                await stream[1].wait_closed()

    async def _exchange(self, method: str, raw: bytes) -> RawAnswer:
        if self._stream is None or self._stream[0].at_eof():
            self.close()
            self._stream = await asyncio.open_connection(self._host, self._port, limit=_HEAD_BYTES_MAX)
        reader, writer = self._stream
        # a server that refuses a body before it has read it may stop reading: its answer counts
        with contextlib.suppress(ConnectionError):
            writer.write(raw)
            await writer.drain()
        status, headers = 100, {}
        while 100 <= status < 200:
            status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        body, ends = await _body(reader, method, status, headers)
        if ends or headers.get("connection", "").lower() == "close":
            self.close()
        return RawAnswer(status, headers, body)


def _parse_head(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(first.split(" ", 2)[1]), headers


async def _body(
    reader: asyncio.StreamReader, method: str, status: int, headers: dict[str, str]
) -> tuple[bytes, bool]:
    """The body, and whether the connection's end was the body's end."""
    if method == "HEAD" or status in {204, 304}:
        return b"", False
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":  # trailers
            pass
        return b"".join(parts), False
    if "content-length" in headers:
        return await reader.readexactly(min(int(headers["content-length"]), _ANSWER_BYTES_MAX)), False
    return await reader.read(_ANSWER_BYTES_MAX), True
