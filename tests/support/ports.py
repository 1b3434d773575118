"""A port for a program that has to be told one before it starts."""

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def a_port() -> Iterator[int]:
    """A free port of loopback. Who names it can listen there, again and again; nobody else who asks for any port is
    given it meanwhile (Linux), as other tests ask all the time.
    """
    with _bound(socket.AF_INET6, "::1", 0) as six:
        port = six.getsockname()[1]
        with _bound(socket.AF_INET, "127.0.0.1", port) as four:
            if sys.platform != "linux":  # there a socket that is only bound is in the way of servers
                six.close()
                four.close()
            yield port


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: they are let in beside it
    try:
        one.bind((host, port))
    except OSError:
        one.close()
        raise
    return one
