"""Something that takes the place of Nexus on a socket and says exactly what a test wants."""

import asyncio
import contextlib

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status, body=b"", headers=b""):
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


@contextlib.asynccontextmanager
async def peer(talk):
    """A server that says what `talk(reader, writer, nth connection)` says; gives its address."""
    seen = []

    async def connected(reader, writer):
        seen.append(writer)
        try:
            await talk(reader, writer, len(seen))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for writer in seen:
            writer.close()
        await server.wait_closed()


async def read_request(reader):
    """Head and body of the next request. `IncompleteReadError` when there is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head, await reader.readexactly(int(length[0].split(b":")[1])) if length else b""


def target_of(head):
    """The path of a request's head."""
    return head.split(b" ", 2)[1].decode()


def says(said):
    """Answers each connection's first request with these bytes and closes."""

    async def talk(reader, writer, _nth):
        await read_request(reader)
        writer.write(said)
        await writer.drain()

    return talk
