"""A gzip file as a stream of its inflated bytes, inflated by ISA-L and copied to where the reader wants them."""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from types import TracebackType

import numpy as np
from isal import igzip_lib, isal_zlib

from pipeline.dumps.deflate import WINDOW_BYTES, ZLIB_ERROR
from pipeline.dumps.seek import MEMBER, SeekPoint, SeekPoints, seek_point
from pipeline.errors import SourceError

READ_BYTES = 256 << 10
PIECE_BYTES = 512 << 10
"""Of 64 kB to 4 MB, these take least time: what is inflated, and copied out, stays in the second-level cache."""
FIRST_BYTES = 4 << 10
"""Fed first of every gzip member, then ever more: what a member leaves over is copied, and members may be tiny."""
TRAILER_BYTES = 8
BOMB_BYTES = 256 << 20
BOMB_RATIO = 200
"""More than this many inflated bytes at more than this ratio is not a dump of alerts (stamps hardly compress)."""


class Inflated:
    """Inflated bytes of a gzip file, read forwards.

    Several gzip members one behind the other are one stream. A stream that is cut, damaged, followed by something
    else, or inflates without end is a :class:`SourceError` that says how far it got; what stands before the damage is
    given out first. Inflating and copying leave other threads free to run.

    Parameters
    ----------
    path : str
        The gzip file.
    source : str
        Named in errors.
    start : SeekPoint, optional
        Begin there and not at the beginning. What stands before is not read: neither is its damage found, nor the
        file's digest computed. All behind is checked as ever: the checksum and length of the gzip member that the
        point is in are told from what it remembers of the part before.
    points : SeekPoints, optional
        Takes the seek points found on the way. Costs 2 % of the time.

    Attributes
    ----------
    position : int
        Inflated bytes consumed so far, those before ``start`` included.
    sha256 : str or None
        Of the compressed file, once it has been read from its beginning to its end.

    Raises
    ------
    SourceError
        The file cannot be read, or ``start`` is none of its seek points.
    """

    def __init__(
        self, path: str, source: str, start: SeekPoint | None = None, points: SeekPoints | None = None
    ) -> None:
        self.position = 0 if start is None else start.offset
        self._piece = memoryview(b"")
        self._error: SourceError | None = None
        self._points = points
        self._stream = _Stream(path, source, points is not None)
        if start is not None:
            try:
                self._stream.begin_at(start)
            except SourceError:
                self.close()
                raise

    def __enter__(self) -> Inflated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sha256(self) -> str | None:  # noqa: D102 (described above)
        return self._stream.sha256

    def close(self) -> None:
        """Close the file; what was not read is dropped."""
        self._stream.close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes.

        Parameters
        ----------
        buffer : memoryview
            Writable, of single bytes. Best of a megabyte and more; a small one costs no more than its copy.

        Returns
        -------
        int
            Bytes written to its beginning: all of it, fewer only before the end of the stream or before what cannot
            be read, 0 at the end.

        Raises
        ------
        SourceError
            No byte can be given, and the stream is not at its end.
        """
        out = np.frombuffer(buffer, np.uint8)
        filled = 0
        while filled < len(out) and self._refill(filled > 0):
            n = min(len(out) - filled, len(self._piece))
            np.copyto(out[filled : filled + n], np.frombuffer(self._piece[:n], np.uint8))  # does not hold the GIL
            self._piece = self._piece[n:]
            filled += n
        self.position += filled
        return filled

    def read(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end of the stream."""
        parts = []
        missing = n
        while missing and self._refill(False):
            parts.append(self._piece[:missing])
            missing -= len(parts[-1])
            self._piece = self._piece[len(parts[-1]) :]
        self.position += n - missing
        return b"".join(parts)

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""
        passed = 0
        while passed < n and self._refill(False):
            step = min(n - passed, len(self._piece))
            self._piece = self._piece[step:]
            passed += step
        self.position += passed
        return passed

    def _refill(self, later: bool) -> bool:
        """Have a piece to give from; False at the end, and where an error is to be told ``later``."""
        if len(self._piece) == 0:
            if not self._stream.pieces and self._error is None:
                try:
                    self._inflate()
                except SourceError as error:
                    self._error = error
            if self._stream.pieces:
                self._piece = memoryview(self._stream.pieces.popleft())
        if len(self._piece) == 0 and self._error is not None and not later:
            raise self._error
        return len(self._piece) > 0

    def _inflate(self) -> None:
        """Go on by at least a piece, or to the end."""
        stream, points = self._stream, self._points
        while not stream.pieces and (stream.is_inside or stream.begin()):
            if points is None or stream.given < points.due:
                stream.step(READ_BYTES)
            elif stream.taken == stream.begun:
                points.add(SeekPoint(stream.given, stream.begun, 0, MEMBER, stream.given, 0, b""))
            elif (point := seek_point(stream)) is not None:
                points.add(point)
            elif stream.is_inside:  # else the next member, if there is one, is the seek point
                points.miss(stream.given)


class _Stream:
    """The compressed side: gzip members, fed to an inflater by as much as is asked for; what it puts out is queued.

    Attributes
    ----------
    pieces : deque of bytes
        Put out and not yet taken away by the reader.
    taken, given : int
        Bytes of the file fed to the inflater, and bytes that it has put out.
    begun, member : int
        The same, where the present gzip member began.
    sha256 : str or None
        Of the file, once it was read to its end.
    """

    def __init__(self, path: str, source: str, keeps_window: bool) -> None:
        self.pieces: deque[bytes] = deque()
        self.taken = self.given = self.begun = self.member = 0
        self.sha256: str | None = None
        self._source = source
        self._keeps_window = keeps_window
        self._recent = b""
        self._digest: hashlib._Hash | None = hashlib.sha256()
        self._chunk, self._at = b"", 0
        self._inflater: igzip_lib.IgzipDecompressor | None = None
        self._most = FIRST_BYTES
        self._crc: int | None = None
        try:
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def is_inside(self) -> bool:
        """Whether a gzip member goes on here."""
        return self._inflater is not None

    @property
    def crc(self) -> int:
        """CRC-32 of what the present member has put out."""
        if self._crc is not None:
            return self._crc
        return 0 if self._inflater is None else self._inflater.crc

    @property
    def window(self) -> bytes:
        """The last 32 KiB put out."""
        return self._recent[-WINDOW_BYTES:]

    def begin_at(self, point: SeekPoint) -> None:
        """Go to a seek point before anything was read."""
        self._file.seek(point.byte)
        self._digest = None
        self.taken = self.begun = point.byte
        self.given, self.member = point.offset, point.member
        if point.kind == MEMBER:
            return
        first = self.ahead(1)
        if not first:
            raise self._failure("the gzip stream is cut")
        try:
            self._inflater, had = point.begin(first)
        except ZLIB_ERROR as error:
            raise self._failure(f"the gzip stream cannot be inflated ({error})") from None
        self._at += had
        self.taken += had
        self._crc, self._recent = point.crc, point.window

    def begin(self) -> bool:
        """Begin the next gzip member, behind padding; False at the end of the file."""
        while True:
            if self._at == len(self._chunk) and not self._fill():
                self.sha256 = None if self._digest is None else self._digest.hexdigest()
                return False
            rest = self._chunk[self._at : self._at + FIRST_BYTES]
            padding = len(rest) - len(rest.lstrip(b"\0")) if self.taken else 0
            self._at += padding
            self.taken += padding
            if padding < len(rest):
                break
        self._inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        self._most = FIRST_BYTES
        self.begun, self.member = self.taken, self.given
        return True

    def ahead(self, n: int) -> bytes:
        """Return the next ``n`` bytes of the file, not yet fed; fewer only at its end."""
        while len(self._chunk) - self._at < n and self._fill():
            pass
        return self._chunk[self._at : self._at + n]

    def step(self, most: int) -> bytes:
        """Feed ``most`` bytes or fewer, and return what the inflater puts out; it is queued, too."""
        inflater = self._inflater
        if inflater is None:
            raise ValueError("no gzip member has begun")
        is_hungry = inflater.needs_input and most > 0
        if is_hungry and self._at == len(self._chunk):
            self._fill()
        data = memoryview(self._chunk)[self._at : self._at + min(most, self._most) * is_hungry]
        try:
            piece = inflater.decompress(data, PIECE_BYTES)
        except ZLIB_ERROR as error:
            raise self._failure(f"the gzip stream is damaged ({error})") from None
        self._at += len(data)
        self.taken += len(data)
        self._most = min(2 * self._most, READ_BYTES)
        self._put(piece)
        if inflater.eof:
            self._end(inflater.unused_data)
        elif is_hungry and not data and not piece:
            raise self._failure("the gzip stream is cut")
        return piece

    def _put(self, piece: bytes) -> None:
        self.given += len(piece)
        if self.given > BOMB_BYTES and self.given > BOMB_RATIO * self.taken:
            raise self._failure("the gzip stream inflates without end")
        if piece:
            self.pieces.append(piece)
            if self._keeps_window:
                self._recent = piece if len(piece) >= WINDOW_BYTES else self.window + piece
            if self._crc is not None:
                self._crc = isal_zlib.crc32(piece, self._crc)

    def _end(self, unused: bytes) -> None:
        """End a gzip member, whose inflater has not used the last bytes that it was fed."""
        self._inflater = None
        self.taken -= len(unused)
        self._at -= len(unused)
        if self._at < 0:  # some were of the chunk before
            self._chunk, self._at = unused[: -self._at] + self._chunk, 0
        if self._crc is not None:
            trailer = self.ahead(TRAILER_BYTES)
            if len(trailer) < TRAILER_BYTES:
                raise self._failure("the gzip stream is cut")
            expected = self._crc.to_bytes(4, "little") + (self.given - self.member & 0xFFFFFFFF).to_bytes(4, "little")
            if trailer != expected:
                raise self._failure("the gzip stream is damaged (its checksum or length differs)")
            self._at += TRAILER_BYTES
            self.taken += TRAILER_BYTES
            self._crc = None

    def _fill(self) -> bool:
        """Read more of the file behind what is left of the chunk; False at its end."""
        try:
            more = self._file.read(READ_BYTES)
        except OSError as error:
            raise self._unreadable(error) from None
        if self._digest is not None:
            self._digest.update(more)
        self._chunk, self._at = self._chunk[self._at :] + more, 0
        return len(more) > 0

    def _failure(self, reason: str) -> SourceError:
        how_far = f"after {self.taken} compressed and {self.given} inflated bytes"
        return SourceError(f"{reason} {how_far}", source=self._source)

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(f"cannot be read: {error.strerror or error}", source=self._source)
