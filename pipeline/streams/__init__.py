"""Other streams: two surveys matched both ways by night; a table of the user's against any range of nights."""

from __future__ import annotations

from pipeline.streams.nightly import Matched, Stream, match_streams
from pipeline.streams.table import TableMatched, match_table
from pipeline.streams.targets import Targets, read_targets

__all__ = ["Matched", "Stream", "TableMatched", "Targets", "match_streams", "match_table", "read_targets"]
