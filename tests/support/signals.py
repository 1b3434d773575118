"""What signals do in pytest's own process: programs of tests inherit what is ignored."""

import signal

KEPT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handlers():
    """Of each, in this order."""
    return [signal.getsignal(each) for each in KEPT]


def give_back(before):
    """As `handlers` said that they were. In another thread than the first one nothing can have changed them."""
    for each, handler in zip(KEPT, before, strict=True):
        if signal.getsignal(each) is not handler:
            signal.signal(each, handler)
