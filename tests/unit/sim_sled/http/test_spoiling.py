"""When the pieces of an answer that dribbles are written, on a clock that only moves when somebody sleeps."""

from unittest.mock import AsyncMock, Mock

import pytest

from nexus_client.dropshot.response import status_line
from sim_sled.core.spoil import How, Spoil
from sim_sled.http import spoiling
from sim_sled.http.routes import RawAnswer


@pytest.mark.parametrize("size", [0, 1, 17, 5_000])
async def test_an_answer_that_dribbles_begins_at_once_and_is_there_when_its_time_is_over(size, monkeypatch):
    now_s = 100.0

    async def sleep(seconds):
        nonlocal now_s
        now_s += seconds

    async def write(piece):
        nonlocal now_s
        written.append((round(now_s - 100, 6), bytes(piece)))
        now_s += 0.001  # writing takes time, too: it does not add up

    written = []
    clock = Mock(time=lambda: now_s)
    monkeypatch.setattr(spoiling, "asyncio", Mock(sleep=sleep, get_running_loop=lambda: clock))
    response = spoiling.SpoiltResponse(RawAnswer(200, body=b"x" * size), Spoil(How.DRIBBLE, 400_000), "id")
    await response.prepare(Mock(writer=Mock(write=write, write_eof=AsyncMock())))
    await response.write_eof()
    times = [at_s for at_s, _ in written]
    whole = b"".join(piece for _, piece in written)
    assert (times[0], times[-1]) == (0, 0.4)
    assert 10 < len(times) <= spoiling.PIECES
    assert times == sorted(set(times))
    assert whole.startswith(status_line(200, old=False).encode())
    assert whole.endswith(b"\r\n\r\n" + b"x" * size)
