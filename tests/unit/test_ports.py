"""A port that a test has named is its own until the end."""

import socket
import sys

import pytest
from support.ports import a_port


def listening(family, host, port):
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
    one.bind((host, port))
    one.listen()
    return one


def test_who_names_it_can_listen_there_again_and_again():
    with a_port() as port:
        for _ in range(2):
            with listening(socket.AF_INET6, "::1", port), listening(socket.AF_INET, "127.0.0.1", port):
                socket.create_connection(("::1", port)).close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not held")
def test_to_whoever_draws_one_it_is_taken():
    """What the kernel draws must be free to a socket like this one."""
    with a_port() as port:
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
            with socket.socket(family) as drawn, pytest.raises(OSError, match="in use"):
                drawn.bind((host, port))
