"""Seek points of a gzip file: where a later process can begin to inflate, found while it is inflated once.

Inflating starts at a gzip member, or at a deflate block if what the stream inflated to before it, as far back as it
refers, is at hand. No library tells where blocks begin. But an inflater that was fed up to a block's first byte has put
out all that stands before the block and nothing of it: so wherever bytes look like a block, the place is known, and a
trial tells whether inflating from there gives what the stream itself gives.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip_lib

from pipeline.dumps.deflate import DYNAMIC, HEADER_BYTES, NONE, STORED, WINDOW_BYTES, ZLIB_ERROR, find_block, opening

SPACING = 32 << 20
"""Inflated bytes between seek points: 70 ms of inflating, and a thousandth of it in windows."""
LOOK_BYTES = 128 << 10
"""Compressed bytes that are looked through for a block: most are of 15 to 60 kB."""
CHECK_BYTES = 256 << 10
"""Inflated bytes that a trial must have right."""
MAX_TRIES = 16
SPOOL_BYTES = 4 << 20
"""More is not inflated in search of one seek point: all of it has to be held."""
MAX_POINTS = 2048
"""Of one file: their windows take 64 MB. Of more, every other one is dropped."""

MEMBER = STORED + 1
"""Kind of a seek point at which a gzip member begins."""


@dataclass(frozen=True, slots=True)
class SeekPoint:
    """Where inflating can begin.

    Attributes
    ----------
    offset : int
        Inflated bytes before it.
    byte, bit : int
        Where it stands in the compressed file.
    kind : int
        ``MEMBER``, or of a block ``DYNAMIC`` or ``STORED`` (at its length).
    member : int
        Inflated bytes before the gzip member that it is in.
    crc : int
        CRC-32 of what the member inflates to before it.
    window : bytes
        The last 32 KiB before ``offset``, fewer near the beginning; none of a gzip member.
    """

    offset: int
    byte: int
    bit: int
    kind: int
    member: int
    crc: int
    window: bytes

    def begin(self, first: bytes) -> tuple[igzip_lib.IgzipDecompressor, int]:
        """Return an inflater of raw deflate that stands at this block, and how many bytes of the file it has had.

        Parameters
        ----------
        first : bytes
            Of the file from ``byte`` on: at least one.

        Raises
        ------
        ZLIB_ERROR
            The inflater does not take it.
        """
        had = int(self.kind == DYNAMIC and self.bit > 0)
        inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
        if inflater.decompress(opening(self.window, self.kind, self.bit, first[0])) != self.window:
            raise ZLIB_ERROR("the inflater does not begin at the block")
        return inflater, had


class SeekPoints:
    """Seek points of one file, in order.

    Parameters
    ----------
    spacing : int, default 32 MiB
        Inflated bytes from one to the next, or more.
    points : sequence of SeekPoint, optional
        Those known already.

    Attributes
    ----------
    points : list of SeekPoint
        Those found so far. One thread may add while others read.
    due : int
        Inflated offset from which the next one is to be looked for.
    """

    def __init__(self, spacing: int = SPACING, points: Sequence[SeekPoint] = ()) -> None:
        self.points = list(points)
        self._spacing = self._wait = spacing
        self.due = spacing + (self.points[-1].offset if self.points else 0)

    def add(self, point: SeekPoint) -> None:
        """Take a seek point behind all others."""
        self.points.append(point)
        if len(self.points) > MAX_POINTS:
            self.points = self.points[1::2]
            self._spacing *= 2
        self._wait = self._spacing
        self.due = point.offset + self._spacing

    def miss(self, offset: int) -> None:
        """Note that none was found before ``offset``: one is looked for later, and ever later where none is found."""
        self.due = offset + self._wait
        self._wait *= 2

    def near(self, offset: int) -> SeekPoint | None:
        """Return the last one at or before an inflated offset; None where only the file's beginning is."""
        points = self.points  # another thread may be adding to them
        place = bisect_right(points, offset, key=lambda point: point.offset)
        return points[place - 1] if place else None

    def dump(self, identity: Mapping[str, str | int]) -> bytes:
        """Return the seek points as a Parquet file that names the file they are of.

        Parameters
        ----------
        identity : mapping
            What tells the file from others and from itself after a change: size, time, digest.
        """
        points = list(self.points)  # another thread may be adding to them
        table = pa.table(
            [[getattr(point, name) for point in points] for name in _SCHEMA.names],
            schema=_SCHEMA.with_metadata({"identity": json.dumps(dict(identity), sort_keys=True)}),
        )
        table = table.replace_schema_metadata({**table.schema.metadata, b"digest": _digest(points, identity)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", use_dictionary=False)
        return sink.getvalue().to_pybytes()

    @classmethod
    def load(cls, data: bytes, identity: Mapping[str, str | int], spacing: int = SPACING) -> SeekPoints:
        """Return the seek points that :meth:`dump` gave.

        Parameters
        ----------
        data : bytes
            The Parquet file.
        identity : mapping
            All that is known of the file they are to be used for: as much must stand in ``data``, and be equal.
        spacing : int
            As of a new one.

        Raises
        ------
        ValueError
            The seek points are damaged, or those of another file; the message says which, in one line.
        """
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if file.metadata.num_rows > MAX_POINTS or size > MAX_POINTS * (WINDOW_BYTES + 1024):
                raise ValueError("they are too many")
            table = file.read()
            saved = json.loads(table.schema.metadata[b"identity"])
            points = [SeekPoint(**row) for row in table.to_pylist()]
            is_sound = table.schema.metadata[b"digest"] == _digest(points, saved)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"the seek points are damaged ({' '.join(str(error).split())[:200]})") from None
        if not is_sound:
            raise ValueError("the seek points are damaged (their digest differs)")
        for name, value in identity.items():
            if saved.get(name) != value:
                raise ValueError(f"the seek points are of another file ({name} {saved.get(name)}, not {value})")
        return cls(spacing, points)


_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.int64(), nullable=False) for name in ("offset", "byte")),
        *(pa.field(name, pa.int8(), nullable=False) for name in ("bit", "kind")),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("member", "crc")),
        pa.field("window", pa.binary(), nullable=False),
    ]
)


def _digest(points: Sequence[SeekPoint], identity: Mapping[str, str | int]) -> bytes:
    digest = hashlib.sha256(json.dumps(["1", dict(identity)], sort_keys=True).encode())
    for point in points:
        digest.update(repr(astuple(point)[:-1]).encode())
        digest.update(point.window)
    return digest.hexdigest().encode()


# ------------------------------------------------------------------------------- finding one
class Stream(Protocol):
    """A gzip file being inflated, as the search for a seek point sees it.

    Attributes
    ----------
    taken, given : int
        Bytes of the file fed to the inflater, and bytes that it has put out.
    member : int
        Bytes put out before the present gzip member.
    """

    taken: int
    given: int
    member: int

    @property
    def is_inside(self) -> bool:
        """Whether a gzip member goes on here."""

    @property
    def crc(self) -> int:
        """CRC-32 of what the present member has put out."""

    @property
    def window(self) -> bytes:
        """The last 32 KiB put out."""

    def ahead(self, n: int) -> bytes:
        """Return the next ``n`` bytes of the file, not yet fed; fewer only at its end."""

    def step(self, most: int) -> bytes:
        """Feed ``most`` bytes or fewer, and return what the inflater puts out."""


def seek_point(stream: Stream) -> SeekPoint | None:
    """Look for a seek point in what comes next of a stream, which goes on by as much as that takes.

    Returns
    -------
    SeekPoint or None
        None where none was found in ``LOOK_BYTES``.
    """
    first, limit = stream.taken, stream.given + SPOOL_BYTES
    ahead = stream.ahead(LOOK_BYTES + CHECK_BYTES + HEADER_BYTES)
    data = np.frombuffer(ahead, np.uint8)
    bit = -1
    for _ in range(MAX_TRIES):
        bit, kind = find_block(data, bit + 1, 8 * LOOK_BYTES)
        byte = bit >> 3
        if kind == NONE or not _feed(stream, first + byte + 1, limit):  # of the block itself, that byte tells nothing
            return None
        point = SeekPoint(stream.given, first + byte, bit & 7, kind, stream.member, stream.crc, stream.window)
        promised = _trial(point, ahead[byte:])
        if promised:
            return point if _keeps(stream, promised, limit) else None
    return None


def _feed(stream: Stream, stop: int, limit: int) -> bool:
    """Feed all before byte ``stop`` and wait for all it inflates to; False if the member ends or that is too much."""
    while stream.is_inside and stream.given < limit:
        piece = stream.step(stop - stream.taken)
        if not piece and stream.taken == stop:
            return stream.is_inside
    return False


def _trial(point: SeekPoint, ahead: bytes) -> bytes:
    """Return ``CHECK_BYTES`` inflated from a point; none if that fails, or the stream is too short to tell."""
    try:
        inflater, had = point.begin(ahead)
        out = inflater.decompress(memoryview(ahead)[had:], CHECK_BYTES)
    except ZLIB_ERROR:
        return b""
    return out if len(out) == CHECK_BYTES else b""


def _keeps(stream: Stream, promised: bytes, limit: int) -> bool:
    """Tell whether the stream goes on as a trial promised."""
    pieces: list[bytes] = []
    size = 0
    while size < len(promised) and stream.is_inside and stream.given < limit:
        pieces.append(stream.step(CHECK_BYTES))
        size += len(pieces[-1])
    return b"".join(pieces).startswith(promised)
