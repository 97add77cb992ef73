"""How a service is asked: one request at a time, with pauses, and again after a failure, later each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.catalogs.fetch.session import AnswerError
from pipeline.errors import ServiceError

Answer = TypeVar("Answer")


@dataclass
class Politeness:
    """When to ask, and when to give up.

    Attributes
    ----------
    pause_sec : float
        Least time from one answer to the next request.
    tries : int
        Requests made for one answer.
    first_wait_sec, longest_wait_sec : float
        Wait after the first failure, doubled after each further one, and its bound. What a service asks for by
        ``Retry-After`` holds where it is longer; if it is longer than an hour, we do not wait but say so.
    clock, sleep : callable
        Seconds now; wait so many seconds.
    """

    pause_sec: float = 1.0
    tries: int = 5
    first_wait_sec: float = 2.0
    longest_wait_sec: float = 300.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    retries: int = field(default=0, init=False)
    _free_at: float = field(default=float("-inf"), init=False)

    def ask(self, request: Callable[[], Answer], service: str) -> Answer:
        """Return what a request gives, trying again where that may help.

        Raises
        ------
        ServiceError
            It failed to the end; the last failure is told.
        """
        for attempt in range(1, self.tries + 1):
            self._wait(self._free_at - self.clock())
            try:
                try:
                    return request()
                finally:
                    self._free_at = self.clock() + self.pause_sec
            except AnswerError as failure:
                asked = failure.retry_after_sec or 0.0
                if failure.is_final or attempt == self.tries or asked > _LONGEST_ASKED_SEC:
                    raise _given_up(failure, service, attempt) from None
                self.retries += 1
                self._wait(max(asked, min(self.first_wait_sec * 2.0 ** (attempt - 1), self.longest_wait_sec)))
        raise AssertionError("not reached")  # tries is at least 1

    def _wait(self, seconds: float) -> None:
        if seconds > 0.0:
            self.sleep(seconds)


_LONGEST_ASKED_SEC = 3600.0


def _given_up(failure: AnswerError, service: str, attempt: int) -> ServiceError:
    times = f" ({attempt} times)" if attempt > 1 else ""
    wait = failure.retry_after_sec or 0.0
    mend = (
        "the request itself is refused: look at [service] of the declaration"
        if failure.is_final
        else f"run the same command again{f' in {wait / 60:.0f} minutes' if wait > _LONGEST_ASKED_SEC else ''}, "
        "what was answered is kept"
    )
    return ServiceError(f"{service}: {failure}{times}", mend=mend)
