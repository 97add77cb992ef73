"""Follow-up of events in the archive: alerts within sky-map contours, positions on them, and what was covered."""

from __future__ import annotations

from pipeline.followup.coverage import Coverage, coverage
from pipeline.followup.hosts import open_catalogs
from pipeline.followup.positions import positions
from pipeline.followup.search import Found, Search, find, search

__all__ = ["Coverage", "Found", "Search", "coverage", "find", "open_catalogs", "positions", "search"]
