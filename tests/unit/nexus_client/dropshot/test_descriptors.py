"""No open file left, no room on a disk: told in a line, whatever the library or a last line of defence would say."""

import errno
import logging

import pytest
from aiohttp.test_utils import make_mocked_request

from nexus_client.dropshot.descriptors import TOLD_EVERY_S, ToldOnce
from nexus_client.dropshot.listen import Server, listen
from nexus_client.dropshot.response import failed_answer
from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.server.store import StoreFailed


def logged(text, at_s=0.0):
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, text, None, (OSError, OSError(), None))
    record.created = at_s
    return record


def test_that_nobody_can_be_accepted_is_a_line_in_a_while_and_no_traceback():
    told = ToldOnce()
    first = logged("socket.accept() out of system resource\nsocket: <TransportSocket>", 100.0)
    assert told.filter(first)
    assert (first.exc_info, first.getMessage()[:20]) == (None, "no open file is left")
    assert not told.filter(logged("socket.accept() out of system resource", 100.0 + TOLD_EVERY_S / 2))
    assert told.filter(logged("socket.accept() out of system resource", 100.0 + TOLD_EVERY_S))
    other = logged("something else", 101.0)
    assert told.filter(other)
    assert other.exc_info is not None


async def test_whoever_listens_has_it_once():
    for _ in range(2):
        listener = await listen(Server(lambda _request: None), SocketAddress("::1", 0))
        await listener.close()
    assert sum(isinstance(each, ToldOnce) for each in logging.getLogger("asyncio").filters) == 1


@pytest.mark.parametrize(
    ("error", "text", "traceback"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device", False),
        (OSError(errno.EMFILE, "Too many open files"), "[Errno 24] Too many open files", False),
        (StoreFailed("n.db: disk I/O error"), "n.db: disk I/O error", False),
        (OSError("whatever"), "", True),
        (KeyError("a bug"), "", True),
    ],
)
def test_what_the_machine_lacks_is_a_line_of_the_log_and_a_bug_has_its_traceback(caplog, error, text, traceback):
    answer = failed_answer(error, make_mocked_request("PUT", "/x"), "id", lambda _error: None)
    (record,) = caplog.records
    assert (answer.status, record.getMessage()) == (500, f"PUT /x failed{': ' if text else ''}{text}")
    assert bool(record.exc_info) == traceback
