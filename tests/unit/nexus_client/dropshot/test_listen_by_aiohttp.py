"""The manners of a connection are the same where an aiohttp is installed whose loop nobody has read: its own goes on
from request to request then, which is slower and nothing else.
"""

import asyncio

import pytest

from nexus_client.dropshot import listen
from tests.unit.nexus_client.dropshot.test_listen import (  # noqa: F401 -- collected here, too
    echo,
    serving,
    test_a_body_that_ends_early_is_told_so,
    test_a_body_that_nobody_reads_is_dropped_and_the_connection_stays,
    test_a_client_that_has_shut_its_sending_side_is_answered,
    test_a_client_that_leaves_in_the_middle_of_a_stream_is_no_error_of_ours,
    test_a_client_that_waits_for_leave_gets_it_when_its_body_is_read,
    test_a_kept_connection_without_a_request_is_closed,
    test_a_request_under_way_is_waited_for_when_a_server_ends,
    test_an_answer_that_is_on_its_way_is_not_followed_by_a_second_one,
    test_an_error_of_a_handlers_own_connection_is_told_and_answered,
    test_heads_that_are_refused_end_the_connection,
    test_more_pipelined_requests_than_are_kept_waiting_are_answered_in_order,
    test_odd_heads_are_taken_and_the_connection_stays,
    test_pipelined_requests_are_answered_in_order,
)


@pytest.fixture(autouse=True)
def _another_aiohttp(monkeypatch):
    monkeypatch.setattr(listen, "CONNECTION", listen.Connection)


async def test_its_loop_makes_a_task_of_each_request():
    tasks = []

    async def handler(request):
        tasks.append(asyncio.current_task())
        return await echo(request)

    async with serving(handler) as connect:
        client = await connect()
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await client.status() == 200
    assert tasks[0] is not tasks[1]
