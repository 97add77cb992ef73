"""Headers of tar archives: ustar, GNU and pax names, sizes beyond 8 GiB; nothing is unpacked.

An archive must end with its end marker: one that stops at a member boundary has been cut and is refused. Archives
that were simply joined (``cat a.tar b.tar``) are read through, since what stands behind the first end marker would
otherwise be lost in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pipeline.errors import SourceError

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20
MAX_SIZE = 1 << 50
"""A member said to be larger than this is damage."""
_ZERO = bytes(BLOCK)
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_EXTENSIONS = (b"x", b"g", b"L", b"K")


class Stream(Protocol):
    """What :func:`members` reads: forwards only."""

    position: int

    def read(self, n: int) -> bytes:
        """Return ``n`` bytes, fewer only at the end."""

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""


class FileStream:
    """A file read forwards from ``start``.

    Parameters
    ----------
    path : str
        The file.
    start : int
        First byte.
    buffering : int
        0 to read headers only, -1 to read everything.
    """

    def __init__(self, path: str, start: int = 0, buffering: int = -1) -> None:
        self._file = Path(path).open("rb", buffering=buffering)  # noqa: SIM115 (closed by __exit__)
        self._size = os.fstat(self._file.fileno()).st_size
        self.position = self._file.seek(start)

    def __enter__(self) -> FileStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end of the file."""
        out = self._file.read(n)
        self.position += len(out)
        return out

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""
        passed = min(n, self._size - self.position)
        self.position = self._file.seek(passed, os.SEEK_CUR)
        return passed


@dataclass(frozen=True, slots=True)
class Member:
    """One member: ``start`` is where its first header stands, ``offset`` where its ``size`` bytes of data do."""

    name: str
    is_file: bool
    start: int
    offset: int
    size: int


def padded(size: int) -> int:
    """Return ``size`` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def is_header(block: bytes) -> bool:
    """Whether a block is a tar header (its checksum is right) or an end marker."""
    return len(block) == BLOCK and (block == _ZERO or _checksum_fits(block))


def members(stream: Stream, source: str, stop: int | None = None) -> Iterator[Member]:
    """Walk an archive; the caller may read a member's data before it asks for the next one.

    Parameters
    ----------
    stream : Stream
        Positioned at a header.
    source : str
        Named in errors.
    stop : int, optional
        Position of the header to stop before; without it the archive is walked to its end marker.

    Raises
    ------
    SourceError
        The archive is cut or damaged; the message says where.
    """
    count = 0
    extended: dict[str, str] = {}
    start: int | None = None  # first header of the member that is being read
    ended = False
    while stop is None or stream.position < stop or start is not None:
        at = stream.position
        block = stream.read(BLOCK)
        if ended and not block:
            return
        if block == _ZERO or (ended and not any(block)):
            ended = True
            continue
        if len(block) < BLOCK:
            raise _cut(source, at + len(block), count)
        if not _checksum_fits(block):
            raise SourceError(f"the archive is damaged at byte {at}, behind {count} members", source=source)
        ended = False
        start = at if start is None else start
        kind, size = block[156:157], _number(block[124:136], at, source)
        if kind in _EXTENSIONS:
            extended |= _extension(stream, kind, size, at, source, count)
            continue
        size = int(extended.get("size", size))
        if kind == b"S" or any(key.startswith("GNU.sparse") for key in extended):
            raise SourceError(f"the archive has a sparse member at byte {at}, which is not read", source=source)
        name = extended.get("path") or _name(block)
        data = 0 if kind in _WITHOUT_DATA else size
        offset = stream.position
        yield Member(name, kind in _REGULAR and not name.endswith("/"), start, offset, data)
        start, extended = None, {}
        left = offset + padded(data) - stream.position
        if stream.skip(left) < left:
            raise _cut(source, stream.position, count, name)
        count += 1


def _cut(source: str, at: int, count: int, name: str | None = None) -> SourceError:
    within = f", within member {name}" if name else ""
    return SourceError(f"the archive is cut: it ends at byte {at}{within}, behind {count} whole members", source=source)


def _checksum_fits(block: bytes) -> bool:
    try:
        stored = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return stored == sum(block) - sum(block[148:156]) + 8 * 32


def _number(text: bytes, at: int, source: str) -> int:
    """Return a size: octal, or base 256 where the first bit is set."""
    if text[0] & 0x80:
        if text[0] == 0x80 and (size := int.from_bytes(text[1:], "big")) < MAX_SIZE:
            return size
    else:
        try:
            return int(text.strip(b" \0") or b"0", 8)
        except ValueError:
            pass
    raise SourceError(f"the archive is damaged at byte {at}: {text!r} is no size", source=source)


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _extension(stream: Stream, kind: bytes, size: int, at: int, source: str, count: int) -> dict[str, str]:
    """Read a GNU long name or a pax header; what it says of the next member."""
    if size > MAX_EXTENSION_BYTES:
        raise SourceError(f"the archive is damaged at byte {at}: an extended header of {size} bytes", source=source)
    data = stream.read(padded(size))
    if len(data) < padded(size):
        raise _cut(source, at + BLOCK + len(data), count)
    if kind == b"L":
        return {"path": data[:size].partition(b"\0")[0].decode("utf-8", "backslashreplace")}
    if kind != b"x":  # a link's long name; a global header names no member
        return {}
    out = {}
    text = data[:size]
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(text):
            raise SourceError(f"the archive is damaged at byte {at}: a broken pax header", source=source)
        key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
        out[key.decode("utf-8", "backslashreplace")] = value.decode("utf-8", "backslashreplace")
        text = text[int(length) :]
    if not out.get("size", "0").isdigit() or int(out.get("size", "0")) >= MAX_SIZE:
        raise SourceError(f"the archive is damaged at byte {at}: a broken pax header", source=source)
    return out
