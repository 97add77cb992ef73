"""Calls made in order by a thread of their own, a few behind the one that asks for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Behind:
    """One thread that makes calls in the order they were asked for.

    What a call raises ends the work: the calls behind it are dropped, and the error surfaces where the next one is
    asked for, or at :meth:`finish`. Leaving the context waits for the call that runs and drops the rest.

    Parameters
    ----------
    depth : int
        Calls that may wait; who asks for one more waits too.
    """

    def __init__(self, depth: int = 1) -> None:
        self._calls: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._is_dropped = False
        self._thread = threading.Thread(target=self._work, name="alertmill-writer", daemon=True)

    def __enter__(self) -> Behind:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_dropped = True
        self._join()

    def ask(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Have a call made after those asked for before.

        Raises
        ------
        BaseException
            What an earlier one raised.
        """
        self._raise()
        self._calls.put((call, arguments))

    def finish(self) -> None:
        """Wait until all calls are made; raise what one of them raised."""
        self._join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _join(self) -> None:
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            if self._is_dropped or self._error is not None:
                continue
            call, arguments = asked
            try:
                call(*arguments)
            except BaseException as error:  # surfaces in the other thread
                self._error = error
            del asked, call, arguments  # nothing is kept in memory while waiting
