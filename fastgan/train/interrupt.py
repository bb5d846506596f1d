"""Ctrl-C and SIGTERM as a request to stop after the present step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Which signal asked to stop; ``signum`` is 0 until one did."""

    signum = 0


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one acts as it would without this.

    Outside of the main thread, where Python cannot set handlers, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    def ask(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        restore()

    for signum in SIGNALS:
        signal.signal(signum, ask)
    try:
        yield request
    finally:
        restore()
