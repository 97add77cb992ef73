"""A gzip file as a stream of its inflated bytes, inflated in a thread of its own by zlib-ng."""

from __future__ import annotations

import hashlib
import queue
import threading
from pathlib import Path
from types import TracebackType

from zlib_ng import zlib_ng

from pipeline.errors import SourceError

ZLIB_ERROR: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # its stub says instance
READ_BYTES = 1 << 20
PIECE_BYTES = 4 << 20
QUEUED_PIECES = 8
BOMB_BYTES = 256 << 20
BOMB_RATIO = 200
"""More than this many inflated bytes at more than this ratio is not a dump of alerts (stamps hardly compress)."""


class Inflated:
    """Inflated bytes of a gzip file, read forwards.

    Several gzip members one behind the other are one stream. A stream that is cut, damaged, followed by something
    else, or inflates without end is a :class:`SourceError` that says how far it got.

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
    """

    def __init__(self, path: str, source: str) -> None:
        self.position = 0
        self.sha256: str | None = None
        self._path = path
        self._source = source
        self._pieces: queue.Queue[bytes | SourceError | None] = queue.Queue(QUEUED_PIECES)
        self._stop = threading.Event()
        self._piece = memoryview(b"")
        self._at = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="inflate", daemon=True)
        self._thread.start()

    def __enter__(self) -> Inflated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread; what was not read is dropped."""
        self._stop.set()
        self._thread.join()

    def read(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end of the stream."""
        first = self._piece[self._at : self._at + n]
        if len(first) == n:
            self._at += n
            self.position += n
            return bytes(first)
        parts = [first]
        missing = n - len(first)
        while missing and self._next():
            part = self._piece[:missing]
            self._at = len(part)
            missing -= len(part)
            parts.append(part)
        out = b"".join(parts)
        self.position += len(out)
        return out

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""
        passed = min(n, len(self._piece) - self._at)
        self._at += passed
        while passed < n and self._next():
            self._at = min(n - passed, len(self._piece))
            passed += self._at
        self.position += passed
        return passed

    def _next(self) -> bool:
        """Make the next piece the current one; False at the end."""
        self._piece, self._at = memoryview(b""), 0
        if self._ended:
            return False
        item = self._pieces.get()
        if isinstance(item, bytes):
            self._piece = memoryview(item)
            return True
        self._ended = True
        if item is not None:
            raise item
        return False

    # ------------------------------------------------------------------------------- the thread
    def _put(self, item: bytes | SourceError | None) -> bool:
        while not self._stop.is_set():
            try:
                self._pieces.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _run(self) -> None:
        try:
            self._inflate()
            self._put(None)
        except SourceError as error:
            self._put(error)
        except OSError as error:
            self._put(SourceError(f"cannot be read: {error.strerror or error}", source=self._source))

    def _inflate(self) -> None:
        digest = hashlib.sha256()
        taken = given = 0
        inflater = None
        with Path(self._path).open("rb", buffering=0) as file:
            while chunk := file.read(READ_BYTES):
                digest.update(chunk)
                while chunk:
                    if inflater is None:
                        chunk = chunk.lstrip(b"\0") if taken else chunk  # padding behind the last member
                        if not chunk:
                            break
                        inflater = zlib_ng.decompressobj(31)
                    before = len(chunk)
                    try:
                        piece = inflater.decompress(chunk, PIECE_BYTES)
                    except ZLIB_ERROR as error:
                        raise self._error(f"the gzip stream is damaged ({error})", taken, given) from None
                    chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                    taken += before - len(chunk)
                    given += len(piece)
                    if given > BOMB_BYTES and given > BOMB_RATIO * taken:
                        raise self._error("the gzip stream inflates without end", taken, given)
                    if inflater.eof:
                        inflater = None
                    if piece and not self._put(piece):
                        return
        while inflater is not None and (piece := inflater.decompress(b"", PIECE_BYTES)):
            given += len(piece)
            if not self._put(piece):
                return
        if inflater is not None and not inflater.eof:
            raise self._error("the gzip stream is cut", taken, given)
        self.sha256 = digest.hexdigest()

    def _error(self, reason: str, taken: int, given: int) -> SourceError:
        return SourceError(f"{reason} after {taken} compressed and {given} inflated bytes", source=self._source)
