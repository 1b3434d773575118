"""Reasons as a person reads them. How lines are broken: tests/unit/sim_sled/cli/test_surface_words.py."""

import socket

from support.rows import in_one_test

from nexus_client.dropshot.telling import reason


@in_one_test(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('::1', 12232, 0, 0)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (FileNotFoundError(2, "No such file or directory", "stub.toml"), "No such file or directory"),
        (ValueError("a label is empty"), "a label is empty"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_reason_is_short(error, told):
    assert reason(error) == told
