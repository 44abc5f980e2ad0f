"""One progress line: in place in a terminal, plain and rare lines elsewhere."""

import io
import sys
import threading
import time
from typing import Any

REFRESH_SECONDS = 0.2
LINE_SECONDS = 10.0


class Progress:
    """Counts steps and shows them; safe to call from threads.

    Args:
        label: what runs.
        total: how many steps in all.
        show: True, False, or None: where standard error is a terminal or a notebook's.
        stream: where to write.
    """

    def __init__(
        self, label: str, total: int, show: bool | None, stream: io.TextIOBase | None = None
    ):
        self.stream = sys.stderr if stream is None else stream
        notebook = type(self.stream).__module__.partition(".")[0] == "ipykernel"
        self.in_place = notebook or bool(getattr(self.stream, "isatty", lambda: False)())
        self.show = self.in_place if show is None else bool(show)
        self.label, self.total, self.done = label, total, 0
        self.began = self.shown = time.monotonic()
        self.first: tuple[float, int] | None = None  # when it had compiled, and how far it was
        self.note = ""
        self.width = 0
        self.lock = threading.Lock()

    def __call__(self, steps: int, note: str = "") -> None:
        """Count some more steps."""
        with self.lock:
            self.done += steps
            self.first = self.first or (time.monotonic(), self.done)
            self.note = note or self.note
            wait = REFRESH_SECONDS if self.in_place else LINE_SECONDS
            if self.show and time.monotonic() - self.shown >= wait:
                self._write(ended=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.show:
            self._write(ended=True)

    def _write(self, ended: bool) -> None:
        self.shown = time.monotonic()
        seconds = max(self.shown - self.began, 1e-9)
        rate = self.done / seconds
        share = self.done / max(self.total, 1)
        text = f"{self.label}  {share:4.0%}  {self.done}/{self.total}  {rate:,.0f} steps/s"
        if not ended and self.first is not None and self.done > self.first[1]:
            # what compiling took says nothing of the steps that are left
            each = (self.shown - self.first[0]) / (self.done - self.first[1])
            text += f"  {_clock((self.total - self.done) * each)} left"
        elif ended:
            text += f"  in {_clock(seconds)}"
        text += f"  {self.note}" if self.note else ""
        if self.in_place:
            self.stream.write("\r" + text.ljust(self.width) + ("\n" if ended else ""))
            self.width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


def _clock(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
