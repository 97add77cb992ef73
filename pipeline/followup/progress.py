"""Who is told how far a search is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told the stages of a search and each step of them."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""

    def advance(self, name: str) -> None:
        """Finish one step."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""

    def advance(self, name: str) -> None:
        """Finish one step."""
