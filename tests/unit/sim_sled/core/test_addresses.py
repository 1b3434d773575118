"""addresses.py: socket addresses as texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.core.addresses import PORT_MAX, parse, show


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("[::1]:0", "::1", 0),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[FD00:0::1]:12345", "fd00::1", 12345),
    ],
)
def test_parse(text, host, port):
    assert parse(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::1]:-1",
        "[::1]:+1",
        "[::1]:65536",
        "[::1]:٣",
        "[::1]80",
        "[127.0.0.1]:80",
        "127.0.0.1",
        "127.1:80",
        "localhost:80",
        "1.2.3.4:5:6",
        "[::1]:8 ",
    ],
)
def test_what_is_no_socket_address_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


@given(
    st.ip_addresses().filter(lambda ip: not getattr(ip, "scope_id", None)),
    st.integers(0, PORT_MAX),
)
def test_show_and_parse_are_inverse(ip, port):
    assert parse(show(str(ip), port)) == (str(ip), port)
