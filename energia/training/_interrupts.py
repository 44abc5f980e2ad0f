"""Ctrl-C, which waits until nothing is half done."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Within the block, a first Ctrl-C is noted as `asked`; a second one interrupts as always.

    Only the main thread hears signals, and a handler of the user's own stays.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "Interrupts":
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if usual and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
