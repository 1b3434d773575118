"""answer.py: what counts as an answer, and whether its connection may be used again."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nexus.peers import NO_CONTENT, answer
from support.rows import in_one_test

from nexus_client.exchange.answer import HEAD_BYTES_MAX, Answer, AnswerReader, BadAnswer

_204 = b"HTTP/1.1 204 No Content\r\n"


def _read(*parts, body_max=65_536):
    reader = AnswerReader()
    reader.begin(body_max)
    told = None
    for part in parts:
        told = reader.feed(part)
        if told is not None:
            break
    return told, reader.reusable


@in_one_test(
    "said",
    [
        pytest.param(_204 + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="an empty chunked body"),
        pytest.param(_204 + b"transfer-encoding: chunked\r\n\r\n", id="a chunked body that never comes"),
        pytest.param(_204 + b"\r\n0\r\n\r\n", id="a last chunk nobody announced"),
        pytest.param(_204 + b"content-length: 5\r\n\r\nhello", id="a body"),
        pytest.param(_204 + b"content-length: 5\r\n\r\n", id="a body that never comes"),
        pytest.param(_204 + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n", id="two framings"),
        pytest.param(_204 + b"\r\n" + _204 + b"\r\n", id="another answer"),
        pytest.param(_204 + b"\r\n\x00garbage", id="garbage"),
        pytest.param(_204 + b"connection: close\r\n\r\n", id="the last answer"),
        pytest.param(b"HTTP/1.0 204 x\r\n\r\n", id="HTTP/1.0"),
        pytest.param(_204 + b"transfer-encoding: gzip\r\n\r\n", id="an encoding we do not know"),
    ],
)
def test_a_204_with_something_behind_it_is_a_204_whose_connection_is_not_used_again(said):
    assert _read(said) == (Answer(204), False)


@in_one_test(
    "said",
    [
        pytest.param(NO_CONTENT, id="plain"),
        pytest.param(b"HTTP/1.1 204\r\n\r\n", id="without a reason"),
        pytest.param(_204 + b"content-length: 0\r\n\r\n", id="with a length of nothing"),
        pytest.param(_204 + b"x-padding: " + b"p" * 100_000 + b"\r\n\r\n", id="a head of 100 KB"),
        pytest.param(_204 + b"".join(b"x-%d: y\r\n" % n for n in range(5_000)) + b"\r\n", id="5,000 headers"),
        pytest.param(b"HTTP/1.1 204 x\nserver: old\n\n", id="lines without CR"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + NO_CONTENT, id="after a 100"),
        pytest.param(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" * 3 + NO_CONTENT, id="after early hints"),
    ],
)
def test_a_204_with_nothing_behind_it_keeps_its_connection(said):
    assert _read(said) == (Answer(204), True)


@in_one_test(
    ("said", "told", "reusable"),
    [
        (answer(500, b"abc"), Answer(500, b"abc"), True),
        (b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Answer(500, b"abc"), True),
        (answer(500, b"abc") + b"x", Answer(500, b"abc"), False),
        (b"HTTP/1.1 304 N\r\ncontent-length: 70\r\n\r\n", Answer(304), False),
        (answer(307, b"", b"Location: /x\r\n"), Answer(307, b"", "/x"), True),
        (b"HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x00", Answer(101), False),
        (b"HTTP/1.1 101 S\r\n\r\n", Answer(101), False),
        (answer(799), Answer(799), True),
    ],
)
def test_other_answers(said, told, reusable):
    assert _read(said) == (told, reusable)


@in_one_test(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/2.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nbad header\r\n\r\n",
        b"0\r\n\r\n" + NO_CONTENT,
        b"\x00" * 10,
        _204 + b"x: " + b"p" * (HEAD_BYTES_MAX + 1),
        b"HTTP/1.1 100 C\r\n\r\n" * (HEAD_BYTES_MAX // 18 + 1),
    ],
)
def test_what_is_no_answer(said):
    with pytest.raises(BadAnswer):
        _read(said)


def test_a_body_is_cut_at_its_limit_and_costs_the_connection():
    assert _read(answer(500, b"x" * 11), body_max=10) == (Answer(500, b"x" * 10), False)
    assert _read(answer(500, b"x" * 10), body_max=10) == (Answer(500, b"x" * 10), True)


def test_an_answer_broken_off_in_its_body_counts_by_its_status_and_in_its_head_not_at_all():
    reader = AnswerReader()
    reader.begin(100)
    assert reader.feed(b"HTTP/1.1 400 X\r\ncontent-length: 9\r\n\r\nhal") is None
    assert reader.end() == Answer(400, b"hal")
    reader = AnswerReader()
    reader.begin(100)
    assert reader.feed(_204) is None
    assert reader.end() is None


def test_answers_of_one_connection_follow_each_other():
    reader = AnswerReader()
    for said, told in (
        (answer(500, b"no"), Answer(500, b"no")),
        (NO_CONTENT, Answer(204)),
        (answer(404), Answer(404)),
    ):
        reader.begin(100)
        assert reader.feed(said) == told
        assert reader.reusable


_ANSWERS = st.sampled_from(
    [
        NO_CONTENT,
        answer(500, b"abc"),
        answer(404, b'{"message": "m"}', b"x: y\r\n"),
        b"HTTP/1.1 100 C\r\n\r\n" + NO_CONTENT,
        b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        answer(308, b"", b"location: http://[::1]:1/x\r\n"),
    ]
)


@given(said=_ANSWERS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_an_answer_means_the_same_wherever_it_is_split(said, cuts):
    edges = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    parts = [said[a:b] for a, b in itertools.pairwise(edges)]
    assert _read(*parts) == _read(said)


@given(st.lists(st.one_of(st.binary(max_size=40), _ANSWERS), min_size=1, max_size=6))
def test_noise_is_an_answer_or_bad_and_never_anything_else(parts):
    try:
        told, _ = _read(*parts)
    except BadAnswer:
        return
    assert told is None or 100 <= told.status <= 999
