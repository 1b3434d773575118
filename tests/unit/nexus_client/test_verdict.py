"""verdict.py: the one table of what an answer means."""

from support.rows import in_one_test

from nexus_client.outbox import Delivered, Permanent, Transient
from nexus_client.verdict import PASSING_4XX, is_final, refusal, verdict


@in_one_test("hundred", range(100, 1000, 100))
def test_only_a_considered_no_is_final(hundred):
    for status in range(hundred, hundred + 100):
        final = 400 <= status < 500 and status not in {408, 425, 429}
        assert is_final(status) is final
        if status == 204:
            assert verdict(status, b"") == Delivered()
        else:
            assert verdict(status, b"") == (
                Permanent(f"{status}: no message", status) if final else Transient(f"{status}: no message")
            )


def test_what_passes_is_said_once():
    assert {408, 425, 429} == PASSING_4XX


@in_one_test(
    ("body", "text"),
    [
        (b'{"message": "m", "error_code": "x"}', "m"),
        (b'{"message": 3}', '{"message": 3}'),
        (b"[" * 100_000, "[" * 512),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "no message"),
        (b'{"message": "' + b"y" * 10_000 + b'"}', "y" * 512),
    ],
)
def test_the_message_of_an_answer_is_bounded_whatever_it_is(body, text):
    assert refusal(500, body) == Transient(f"500: {text}")
