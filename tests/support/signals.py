"""What signals do in pytest's own process: programs of tests inherit what is ignored."""

import signal

KEPT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handlers():
    """Of each, in this order."""
    return [signal.getsignal(each) for each in KEPT]


def give_back(before):
    """As `handlers` said that they were."""
    for each, handler in zip(KEPT, before, strict=True):
        signal.signal(each, handler)
