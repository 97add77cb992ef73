"""The first binary table of a FITS file, read from bytes: what sky maps and coverage maps are shipped in.

Only what such files need: no scaling but of unsigned integers, no variable-length columns. The bytes may come from
anybody: sizes are bounded by what the header says before anything is inflated, and by a limit above that.

References
----------
The FITS standard 4.0 (2018), section 7.3; Pence et al. 2010, A&A 524, A42, doi:10.1051/0004-6361/201015362.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_BYTES = 1 << 31
"""Most bytes of a file once inflated: a flat map of NSIDE 2048 with distance takes 1.6 GB."""

Value = str | int | float | bool
_BLOCK = 2880
_LARGEST_HEADER = 200 * _BLOCK
_MOST_UNITS = 64
_CHUNK = 1 << 20
_FEED = 1 << 16
_GZIP = b"\x1f\x8b"
_CARD = re.compile(r"([A-Z0-9_-]{1,8}) *= *(?:'((?:[^']|'')*)'|([^/]*))")
_FORMAT = re.compile(r"(\d{0,12})([A-Z])")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_TYPES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_SIGN_BIT = {"I": 1 << 15, "J": 1 << 31, "K": 1 << 63}


class FitsError(ValueError):
    """The bytes are no FITS file with such a table."""


@dataclass(frozen=True)
class Field:
    """A column: where it lies in a row, how many values of which type, and what the header says of it."""

    offset: int
    code: str
    repeat: int
    unit: str
    is_unsigned: bool


@dataclass(frozen=True)
class Table:
    """A table as it lies in the file.

    Attributes
    ----------
    header : dict
        Keywords of the table, and those of the primary header that it does not have.
    rows : int
        Number of rows.
    fields : dict of Field
        By name, in upper case.
    raw : numpy.ndarray of uint8, shape (rows, bytes of a row)
        The rows.
    """

    header: dict[str, Value]
    rows: int
    fields: dict[str, Field]
    raw: NDArray[np.uint8]

    def view(self, name: str) -> NDArray:
        """Return a column's values as they lie in the file, big-endian, shape (rows, repeat)."""
        field = self.fields[name]
        if field.code not in _TYPES:
            raise FitsError(f"column {name} holds no numbers")
        kind = np.dtype(_TYPES[field.code])
        strides = (self.raw.strides[0], kind.itemsize)
        return np.ndarray((self.rows, field.repeat), kind, self.raw, field.offset, strides)

    def floats(self, name: str) -> NDArray[np.float64]:
        """Return a column's values, rows after one another, shape (rows * repeat,)."""
        if self.fields[name].is_unsigned:
            return self.integers(name).astype(np.float64)
        return self.view(name).astype(np.float64).reshape(-1)

    def integers(self, name: str) -> NDArray[np.int64]:
        """Return a column of integers, shape (rows * repeat,); those above the largest int64 are refused."""
        field = self.fields[name]
        if field.code not in ("B", "I", "J", "K"):
            raise FitsError(f"column {name} holds no integers")
        values = self.view(name).astype(np.int64).reshape(-1)
        if field.is_unsigned and field.code == "K":
            if values.size and values.max() >= 0:
                raise FitsError(f"column {name} holds an integer beyond 2^63")
            return values ^ np.int64(-(1 << 63))
        return values + _SIGN_BIT[field.code] if field.is_unsigned else values


def read_table(data: bytes) -> Table:
    """Return the first binary table of FITS bytes, gzip-compressed or not.

    Raises
    ------
    FitsError
        The bytes are truncated, damaged, no FITS, larger than the limit, or have no table.
    """
    stream = _Stream(data)
    primary = header = _read_header(stream)
    if header.get("SIMPLE") is not True:
        raise FitsError("it does not begin with SIMPLE")
    for _ in range(_MOST_UNITS):
        size = _data_bytes(header)
        if header.get("XTENSION") == "BINTABLE":
            break
        stream.skip(-(-size // _BLOCK) * _BLOCK)
        try:
            header = _read_header(stream)
        except FitsError as error:
            raise FitsError(f"there is no table: {error}") from error
    else:
        raise FitsError(f"there is no table among the first {_MOST_UNITS} units")
    rows, width = _natural(header, "NAXIS2"), _natural(header, "NAXIS1")
    fields = _fields(header, width)
    raw = np.empty((rows, width), dtype=np.uint8)
    stream.fill(raw.reshape(-1))
    stream.finish()
    return Table({**primary, **header}, rows, fields, raw)


# ------------------------------------------------------------------------------------------------ bytes
class _Stream:
    """Bytes from front to end, inflated on the way; never more than were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0
        self.left = LARGEST_BYTES
        self.inflate = zlib.decompressobj(31) if data[:2] == _GZIP else None

    def read(self, size: int) -> bytes:
        out = np.empty(size, dtype=np.uint8)
        self.fill(out)
        return out.tobytes()

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Fill a flat array; what is not there is an error."""
        done = 0
        while done < len(out):
            piece = self._next(min(len(out) - done, _CHUNK))
            if not len(piece):
                raise FitsError(f"it ends {len(out) - done} bytes too early")
            out[done : done + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
            done += len(piece)

    def skip(self, size: int) -> None:
        """Pass over bytes; if fewer are there, over those."""
        while size > 0:
            piece = self._next(min(size, _CHUNK))
            if not len(piece):
                return
            size -= len(piece)

    def finish(self) -> None:
        """Read a compressed file to its end, where its checksum stands."""
        if self.inflate is not None:
            self.skip(LARGEST_BYTES + 1)
            if not self.inflate.eof:
                raise FitsError("the compressed data are truncated")

    def _next(self, most: int) -> bytes | memoryview:
        """Return some bytes, at most so many; none at the end."""
        piece = self._plain(most) if self.inflate is None else self._inflated(most)
        self.left -= len(piece)
        if self.left < 0:
            raise FitsError(f"it is larger than {LARGEST_BYTES >> 20} MiB")
        return piece

    def _plain(self, most: int) -> memoryview:
        piece = self.data[self.at : self.at + most]
        self.at += len(piece)
        return piece

    def _inflated(self, most: int) -> bytes:
        while self.inflate is not None:
            if self.inflate.eof:  # a further member may follow; anything else behind the last one is ignored
                self.at -= len(self.inflate.unused_data)
                if self.data[self.at : self.at + 2] != _GZIP:
                    return b""
                self.inflate = zlib.decompressobj(31)
            food = self.inflate.unconsumed_tail or self._plain(_FEED)
            try:
                piece = self.inflate.decompress(food, most)
            except zlib.error as error:
                raise FitsError(f"the compressed data are damaged: {error}") from error
            if piece or (not len(food) and not self.inflate.eof):
                return piece
        return b""


# ------------------------------------------------------------------------------------------------ headers
def _read_header(stream: _Stream) -> dict[str, Value]:
    header: dict[str, Value] = {}
    for _ in range(_LARGEST_HEADER // _BLOCK):
        block = stream.read(_BLOCK).decode("latin-1")
        for at in range(0, _BLOCK, 80):
            card = block[at : at + 80]
            if card.rstrip() == "END":
                return header
            found = _CARD.match(card)
            if found and card[8:9] == "=":
                header.setdefault(found[1], _value(found[2], found[3]))
    raise FitsError("a header has no end")


def _value(text: str | None, other: str | None) -> Value:
    if text is not None:
        return text.replace("''", "'").rstrip()
    word = (other or "").strip()
    if word in ("T", "F"):
        return word == "T"
    for kind in (int, float):
        try:
            return kind(word.replace("D", "E"))
        except ValueError:
            continue
    return word


def _natural(header: dict[str, Value], name: str, default: int | None = None) -> int:
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FitsError(f"{name} is {value!r}, no natural number")
    return value


def _data_bytes(header: dict[str, Value]) -> int:
    bits = header.get("BITPIX")
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in (8, 16, 32, 64, -32, -64):
        raise FitsError(f"BITPIX is {bits!r}")
    axes = _natural(header, "NAXIS")
    if axes > 999:
        raise FitsError(f"NAXIS is {axes}")
    cells = math.prod(_natural(header, f"NAXIS{k + 1}") for k in range(axes)) if axes else 0
    heap = _natural(header, "PCOUNT", 0) if "XTENSION" in header else 0
    size = (cells + heap) * abs(bits) // 8
    if size > LARGEST_BYTES:
        raise FitsError(f"it announces {size} bytes, more than {LARGEST_BYTES >> 20} MiB")
    return size


def _fields(header: dict[str, Value], width: int) -> dict[str, Field]:
    number = _natural(header, "TFIELDS")
    if header.get("NAXIS") != 2 or header.get("BITPIX") != 8 or number > 999:
        raise FitsError("the header of the table is not understood")
    fields: dict[str, Field] = {}
    offset = 0
    for k in range(1, number + 1):
        form = str(header.get(f"TFORM{k}", "")).strip().upper()
        found = _FORMAT.match(form)
        if not found or (found[2] not in _WIDTHS and found[2] != "X"):
            raise FitsError(f"TFORM{k} is {form!r}")
        code, repeat = found[2], int(found[1] or 1)
        zero, scale = header.get(f"TZERO{k}", 0), header.get(f"TSCAL{k}", 1)
        is_unsigned = code in _SIGN_BIT and zero == _SIGN_BIT[code]
        name = str(header.get(f"TTYPE{k}", "")).strip().upper()
        if scale != 1 or (zero != 0 and not is_unsigned):
            code = "A"  # scaled numbers: no sky map has them, and taking them unscaled would be wrong
        if name and name not in fields:
            fields[name] = Field(offset, code, repeat, str(header.get(f"TUNIT{k}", "")).strip(), is_unsigned)
        offset += -(-repeat // 8) if found[2] == "X" else repeat * _WIDTHS[found[2]]
    if offset != width:
        raise FitsError(f"the columns take {offset} bytes of a row, not NAXIS1 = {width}")
    return fields
