"""The public reading API: what stands behind :func:`pipeline.open`."""

from __future__ import annotations

from pipeline.archive.reader import Archive, open_archive
from pipeline.archive.selection import Selection

__all__ = ["Archive", "Selection", "open_archive"]
