"""Observers of a run: the flow run's log, and progress artifacts in Prefect's pages."""

from __future__ import annotations

import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pipeline.nights.run import Observer

_UPDATE_SEC = 5.0


class Logged:
    """Tells a log; for runs that nobody watches."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def stage(self, name: str, total: int) -> None:
        """See :class:`pipeline.nights.run.Observer`."""
        self._logger.info("%s: %d tasks", name, total)

    def advance(self, name: str) -> None:
        """See :class:`pipeline.nights.run.Observer`."""

    def note(self, message: str) -> None:
        """See :class:`pipeline.nights.run.Observer`."""
        self._logger.warning(message)


class Artifacts:
    """Passes everything on, and shows each stage of several tasks as a progress artifact."""

    def __init__(self, inner: Observer, logger: Any) -> None:
        self._inner = inner
        self._logger = logger
        self._identity: Any = None
        self._stage = ""
        self._total = 0
        self._ended = 0
        self._told = 0.0

    def stage(self, name: str, total: int) -> None:
        """See :class:`pipeline.nights.run.Observer`."""
        self._inner.stage(name, total)
        self._stage, self._total, self._ended, self._identity = name, total, 0, None
        self._told = time.monotonic()

    def advance(self, name: str) -> None:
        """See :class:`pipeline.nights.run.Observer`."""
        self._inner.advance(name)
        if name != self._stage:
            return
        self._ended += 1
        now = time.monotonic()
        is_last = self._ended == self._total and self._identity is not None
        if is_last or now - self._told > _UPDATE_SEC:
            self._told = now
            self._show()

    def note(self, message: str) -> None:
        """See :class:`pipeline.nights.run.Observer`."""
        self._inner.note(message)

    def _show(self) -> None:
        percent = 100.0 * self._ended / self._total
        try:
            if self._identity is None:
                self._identity = create_progress_artifact(percent, description=self._stage)
            else:
                update_progress_artifact(self._identity, percent)
        except Exception as error:
            # Progress is a courtesy: a server that does not take it must not fail a night.
            self._logger.warning("progress of %s could not be shown: %s", self._stage, error)
