"""Notices of gravitational-wave events, gamma-ray bursts and neutrinos: from bytes to one kind of event.

The form of a notice is told from its bytes: LVK alerts as JSON or Avro, VOEvents as XML; each plain or gzip-compressed.
"""

from __future__ import annotations

from pipeline.skymap.notices.event import Coincidence, ErrorCircle, Event
from pipeline.skymap.notices.parse import parse_notice, parse_notices
from pipeline.skymap.notices.streams import STREAMS, Stream

__all__ = ["STREAMS", "Coincidence", "ErrorCircle", "Event", "Stream", "parse_notice", "parse_notices"]
