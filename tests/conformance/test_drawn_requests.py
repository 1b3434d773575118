"""What was drawn once comes back as it was sent."""

import pytest
from conformance.drawn_requests import Drawn


@pytest.mark.parametrize("body", [None, b"", b'{"a": "\xc3\xa4\n"}', b"\xff\xfe", "\u2028".encode()])
def test_a_request_is_one_line_and_comes_back(body):
    sent = Drawn("PUT", "/vmms/{propolis_id}", "/vmms/%00?a=%2F", {"content-type": "text/plain"}, body)
    assert sent.line().splitlines() == [sent.line()]
    assert Drawn.of_line(sent.line()) == sent


def test_what_the_library_adds_to_each_request_is_not_kept():
    headers = {"User-Agent": "x", "Content-Length": "3", "Host": "a", "api-version": "1.0.0", "X-Own": "y"}
    sent = Drawn.sent("GET", "/a/{b}", "http://[::1]:7/a/%C3%A4/?q=http://c", headers, None)
    assert (sent.target, sent.headers) == ("/a/%C3%A4/?q=http://c", {"api-version": "1.0.0", "x-own": "y"})
