"""A gzip file as a stream of its inflated bytes, inflated by ISA-L straight behind the reader's own position."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
from isal import isal_zlib

from pipeline.errors import SourceError

ZLIB_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub says instance
READ_BYTES = 256 << 10
PIECE_BYTES = 512 << 10
"""Of 64 kB to 4 MB, these take least time: what is inflated, and copied out, stays in the second-level cache."""
FIRST_BYTES = 4 << 10
"""Fed first of every gzip member, then ever more: what a member leaves over is copied, and members may be tiny."""
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

    Attributes
    ----------
    position : int
        Inflated bytes consumed so far.
    sha256 : str or None
        Of the compressed file, once it has been read to its end.

    Raises
    ------
    SourceError
        The file cannot be read.
    """

    def __init__(self, path: str, source: str) -> None:
        self.position = 0
        self.sha256: str | None = None
        self._source = source
        self._digest = hashlib.sha256()
        self._inflater: isal_zlib.Decompress | None = None
        self._chunk = memoryview(b"")
        self._feed = FIRST_BYTES
        self._taken = self._given = 0
        self._piece = memoryview(b"")
        self._error: SourceError | None = None
        try:
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise self._unreadable(error) from None

    def __enter__(self) -> Inflated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was not read is dropped."""
        self._file.close()

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
        if len(self._piece) == 0 and self._error is None:
            try:
                self._piece = memoryview(self._inflate())
            except SourceError as error:
                self._error = error
            except OSError as error:
                self._error = self._unreadable(error)
        if len(self._piece):
            return True
        if self._error is not None and not later:
            raise self._error
        return False

    def _inflate(self) -> bytes:
        """Return the next piece, empty at the end of the stream."""
        while len(self._chunk) or self._read():
            if self._inflater is None:
                if not self._at_member():
                    continue
                self._inflater, self._feed = isal_zlib.decompressobj(31), FIRST_BYTES
            piece = self._step(self._inflater, self._chunk[: self._feed])
            if piece:
                return piece
        if self._inflater is None:
            self.sha256 = self._digest.hexdigest()
            return b""
        piece = self._step(self._inflater, memoryview(b""))
        if not piece and self._inflater is not None:
            raise self._failure("the gzip stream is cut")
        return piece

    def _read(self) -> bool:
        chunk = self._file.read(READ_BYTES)
        self._digest.update(chunk)
        self._chunk = memoryview(chunk)
        return len(chunk) > 0

    def _at_member(self) -> bool:
        """Pass over padding behind a gzip member; False if nothing else is at hand."""
        rest = bytes(self._chunk[:FIRST_BYTES])
        padding = len(rest) - len(rest.lstrip(b"\0")) if self._taken else 0
        self._taken += padding
        self._chunk = self._chunk[padding:]
        return padding < len(rest)

    def _step(self, inflater: isal_zlib.Decompress, data: memoryview) -> bytes:
        """Feed ``data``, the beginning of the chunk, to the inflater and return what it puts out."""
        try:
            piece = inflater.decompress(data, PIECE_BYTES)
        except ZLIB_ERROR as error:
            raise self._failure(f"the gzip stream is damaged ({error})") from None
        left = len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
        taken = len(data) - left
        self._chunk = self._chunk[taken:]
        self._feed = min(2 * self._feed, READ_BYTES)
        self._taken += taken
        self._given += len(piece)
        if self._given > BOMB_BYTES and self._given > BOMB_RATIO * self._taken:
            raise self._failure("the gzip stream inflates without end")
        if inflater.eof:
            self._inflater = None
        return piece

    def _failure(self, reason: str) -> SourceError:
        how_far = f"after {self._taken} compressed and {self._given} inflated bytes"
        return SourceError(f"{reason} {how_far}", source=self._source)

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(f"cannot be read: {error.strerror or error}", source=self._source)
