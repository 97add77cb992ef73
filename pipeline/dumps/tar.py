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
_DIGITS = 20
"""Longest number of a pax header."""
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
    stop : int
        Where to end, as if the file did; -1 for its end.
    """

    def __init__(self, path: str, start: int = 0, stop: int = -1) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        size = os.fstat(self._file.fileno()).st_size
        self._size = size if stop < 0 else min(size, stop)
        self.position = self._file.seek(start)

    def __enter__(self) -> FileStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end of the file."""
        out = self._file.read(max(min(n, self._size - self.position), 0))
        self.position += len(out)
        return out

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes; return how many, 0 at the end of the file."""
        n = self._file.readinto(buffer[: max(self._size - self.position, 0)])
        self.position += n
        return n

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""
        passed = max(min(n, self._size - self.position), 0)
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


class Walk:
    """What one header of an archive says, given those before it; whoever reads the archive asks it block by block.

    Parameters
    ----------
    source : str
        Named in errors.

    Attributes
    ----------
    count : int
        Whole members passed, kept by the reader.
    ended : bool
        An end marker was the last thing seen.
    start : int or None
        First header of the member that is being read, None between two members.
    """

    def __init__(self, source: str) -> None:
        self.count = 0
        self.ended = False
        self.start: int | None = None
        self._source = source
        self._extended: dict[str, str] = {}

    def is_marker(self, block: bytes, at: int) -> bool:
        """Whether the block at ``at`` is one of an end marker; if not, it is a header with the right checksum.

        Raises
        ------
        SourceError
            The archive is cut or damaged here.
        """
        if block == _ZERO or (self.ended and not any(block)):
            self.ended = True
            return True
        if len(block) < BLOCK:
            raise self.cut(at + len(block))
        if not _checksum_fits(block):
            raise SourceError(f"the archive is damaged at byte {at}, behind {self.count} members", source=self._source)
        self.ended = False
        self.start = at if self.start is None else self.start
        return False

    def extension(self, block: bytes, at: int) -> int | None:
        """Return the size of an extended header, padded; None for the header of a member."""
        if block[156:157] not in _EXTENSIONS:
            return None
        size = _number(block[124:136], at, self._source)
        if size > MAX_EXTENSION_BYTES:
            message = f"the archive is damaged at byte {at}: an extended header of {size} bytes"
            raise SourceError(message, source=self._source)
        return padded(size)

    def extend(self, block: bytes, data: bytes, at: int) -> None:
        """Take what an extended header says of the next member; ``data`` follow the block at ``at``."""
        size = _number(block[124:136], at, self._source)
        if len(data) < padded(size):
            raise self.cut(at + BLOCK + len(data))
        self._extended |= _extension(block[156:157], data[:size], at, self._source)

    def member(self, block: bytes, at: int) -> Member:
        """Return the member whose header is the block at ``at``."""
        kind, size = block[156:157], _number(block[124:136], at, self._source)
        size = int(self._extended.get("size", size))
        if kind == b"S" or any(key.startswith("GNU.sparse") for key in self._extended):
            message = f"the archive has a sparse member at byte {at}, which is not read"
            raise SourceError(message, source=self._source)
        name = self._extended.get("path") or _name(block)
        data = 0 if kind in _WITHOUT_DATA else size
        start = at if self.start is None else self.start
        self.start, self._extended = None, {}
        return Member(name, kind in _REGULAR and not name.endswith("/"), start, at + BLOCK, data)

    def cut(self, at: int, name: str | None = None) -> SourceError:
        """Return the error that the archive ends at ``at``, within the named member."""
        within = f", within member {name}" if name else ""
        message = f"the archive is cut: it ends at byte {at}{within}, behind {self.count} whole members"
        return SourceError(message, source=self._source)


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
    walk = Walk(source)
    while stop is None or stream.position < stop or walk.start is not None:
        at = stream.position
        block = stream.read(BLOCK)
        if walk.ended and not block:
            return
        if walk.is_marker(block, at):
            continue
        if (size := walk.extension(block, at)) is not None:
            walk.extend(block, stream.read(size), at)
            continue
        member = walk.member(block, at)
        yield member
        left = member.offset + padded(member.size) - stream.position
        if stream.skip(left) < left:
            raise walk.cut(stream.position, member.name)
        walk.count += 1


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


def _extension(kind: bytes, text: bytes, at: int, source: str) -> dict[str, str]:
    """Return what a GNU long name or a pax header says of the next member."""
    if kind == b"L":
        return {"path": text.partition(b"\0")[0].decode("utf-8", "backslashreplace")}
    if kind != b"x":  # a link's long name; a global header names no member
        return {}
    out = {}
    p = 0
    while p < len(text):
        length = text[p : max(text.find(b" ", p, p + _DIGITS), p)]
        if not length.isdigit() or not 0 < int(length) <= len(text) - p:
            raise _broken(at, source)
        key, _, value = text[p + len(length) + 1 : p + int(length) - 1].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            out[key.decode("utf-8", "backslashreplace")] = value.decode("utf-8", "backslashreplace")
        p += int(length)
    size = out.get("size", "0")
    if len(size) > _DIGITS or not (size.isascii() and size.isdigit()) or int(size) >= MAX_SIZE:
        raise _broken(at, source)
    return out


def _broken(at: int, source: str) -> SourceError:
    return SourceError(f"the archive is damaged at byte {at}: a broken pax header", source=source)
