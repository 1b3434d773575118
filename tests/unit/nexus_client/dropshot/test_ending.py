"""SIGTERM and SIGINT from the first moment of a process to its last. Real signals, in processes of their own."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from nexus_client.dropshot import ending


def _run(script, code=0):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_the_first_moment_is_an_exit_code_and_no_traceback(name, code):
    done = _run(
        f"""
        from nexus_client.dropshot import ending
        ending.begin("prog")
        import os, signal
        os.kill(os.getpid(), signal.{name})
        """,
        code,
    )
    assert done.stderr == ("\nprog: interrupted\n" if name == "SIGINT" else "")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_the_first_signal_decides_and_later_ones_are_not_heard_not_even_when_the_loop_is_gone(name, code):
    # `timeout` tells the process and then its group, and a second one used to kill who had ended in order (exit 143)
    done = _run(
        f"""
        import asyncio, os, signal
        from nexus_client.dropshot import ending
        ending.begin("prog")
        ending.imported()

        async def serve():
            stop = ending.asked()
            os.kill(os.getpid(), signal.{name})
            code = await stop
            for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), each)
            await asyncio.sleep(0)
            return code

        code = asyncio.run(serve())
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), each)
        print("in order")
        raise SystemExit(code)
        """,
        code,
    )
    assert (done.stdout, done.stderr) == ("in order\n", "")


def test_no_socket_gets_the_number_of_a_standard_stream_that_was_closed():
    # uvloop aborted at the end of a daemon whose stdin had been closed: one of its sockets was number 0
    done = _run(
        """
        import os
        os.close(0)
        os.close(2)
        from nexus_client.dropshot import ending
        ending.begin("prog")
        print(os.open(os.devnull, os.O_RDONLY) > 2, os.get_inheritable(0), os.read(0, 1))
        """
    )
    assert done.stdout == "True True b''\n"


def test_who_was_started_deaf_to_a_signal_stays_so():
    # nohup and the like
    _run(
        """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from nexus_client.dropshot import ending
        ending.begin("prog")
        for each in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), each)
        """
    )


def test_somebodys_program_that_embeds_a_server_keeps_its_signals():
    _run(
        """
        import asyncio, os, signal
        from nexus_client.dropshot import ending

        async def serve():
            stop = ending.asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert await stop == 0

        asyncio.run(serve())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    )


async def test_work_is_given_up_when_somebody_asks_for_the_end():
    stop, given_up = asyncio.get_running_loop().create_future(), []

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    asyncio.get_running_loop().call_soon(stop.set_result, 0)
    assert not await ending.unless(stop, work())
    assert given_up


async def test_work_that_is_done_when_somebody_asks_for_the_end_is_done():
    """What it has begun is to be ended in order: nobody else knows of it."""
    stop = asyncio.get_running_loop().create_future()

    async def work():
        stop.set_result(0)

    assert await ending.unless(stop, work())


async def test_what_work_raises_is_told():
    async def work():
        raise OSError("taken")

    with pytest.raises(OSError, match="taken"):
        await ending.unless(asyncio.get_running_loop().create_future(), work())
