"""Bytes around Avro bodies: object containers of one record, members of a tar archive, text columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.simulate.draws import Draws


def varint(value: int) -> bytes:
    """Return an Avro long."""
    word = (value << 1) ^ (value >> 63)
    out = bytearray()
    while word & ~0x7F:
        out.append((word & 0x7F) | 0x80)
        word >>= 7
    out.append(word)
    return bytes(out)


def container_header(schema: dict[str, Any]) -> bytes:
    """Return the header of an object container (codec null) up to its sync marker."""
    text = json.dumps(schema).encode()
    out = b"Obj\x01" + varint(2)
    for key, value in ((b"avro.codec", b"null"), (b"avro.schema", text)):
        out += varint(len(key)) + key + varint(len(value)) + value
    return out + varint(0)


def containers(header: bytes, bodies: np.ndarray, offsets: np.ndarray, keys: np.ndarray, draws: Draws) -> list[bytes]:
    """Return one object container for each body, its sync marker drawn for its key.

    Parameters
    ----------
    header : bytes
        As :func:`container_header` gives it.
    bodies, offsets : numpy.ndarray
        Bytes, and offsets (n+1,).
    keys : numpy.ndarray of int64, shape (n,)
        Alert ids.
    """
    marks = np.stack([draws.uniform("sync", keys, counter=part) for part in (0, 1)], axis=1)
    sync = marks.view(np.uint8).reshape(keys.size, 16).tobytes()
    view = memoryview(bodies)  # type: ignore[arg-type]  # an array is a buffer; its stub does not say so
    out = []
    for i in range(keys.size):
        mark = sync[16 * i : 16 * i + 16]
        body = view[offsets[i] : offsets[i + 1]]
        out.append(b"".join((header, mark, b"\x02", varint(len(body)), body, mark)))
    return out


def tar_members(names: np.ndarray, files: list[bytes], mtime: int) -> bytes:
    """Return ``files`` as consecutive members of a ustar archive, without the end of the archive.

    Parameters
    ----------
    names : numpy.ndarray of int64, shape (n,)
        Member i is called ``<names[i]>.avro``.
    files : list of bytes
        Contents.
    mtime : int
        Time of modification of all members, in seconds of POSIX.
    """
    head = np.zeros((len(files), 512), np.uint8)
    text = [str(int(name)).encode() + b".avro" for name in names]
    for row, name in enumerate(text):
        head[row, : len(name)] = np.frombuffer(name, np.uint8)
    head[:, 100:108] = np.frombuffer(b"0000644\0", np.uint8)
    head[:, 108:124] = np.frombuffer(b"0000000\x000000000\x00", np.uint8)
    head[:, 124:135] = digits(np.array([len(data) for data in files]), 11, base=8)
    head[:, 136:147] = digits(np.full(len(files), mtime), 11, base=8)
    head[:, 148:156] = ord(" ")
    head[:, 156] = ord("0")
    head[:, 257:265] = np.frombuffer(b"ustar\x0000", np.uint8)
    head[:, 148:154] = digits(head.sum(axis=1, dtype=np.int64), 6, base=8)
    head[:, 154] = 0
    pieces: list[bytes] = []
    for row, data in enumerate(files):
        pieces += (head[row].tobytes(), data, bytes(-len(data) % 512))
    return b"".join(pieces)


TAR_END = bytes(1024)
"""End of a tar archive."""


def digits(values: np.ndarray, width: int, base: int = 10) -> np.ndarray:
    """Return non-negative integers as text with leading zeros, uint8 (n, width)."""
    out = np.empty((values.size, width), np.uint8)
    rest = np.asarray(values, dtype=np.int64).copy()
    for place in range(width - 1, -1, -1):
        rest, digit = np.divmod(rest, base)
        out[:, place] = digit + 48
    return out


def text_columns(n: int, *parts: bytes | np.ndarray) -> np.ndarray:
    """Return rows of text put together from constants and columns of text, uint8 (n, width)."""
    columns = [
        np.broadcast_to(np.frombuffer(part, np.uint8), (n, len(part))) if isinstance(part, bytes) else part
        for part in parts
    ]
    return np.concatenate(columns, axis=1)


def letters(numbers: np.ndarray, width: int) -> np.ndarray:
    """Return numbers in base 26 as lower-case letters, uint8 (n, width)."""
    out = np.empty((numbers.size, width), np.uint8)
    rest = numbers.copy()
    for place in range(width - 1, -1, -1):
        rest, digit = np.divmod(rest, 26)
        out[:, place] = digit + 97
    return out


def calendar(jd: np.ndarray) -> np.ndarray:
    """Return UTC dates YYYYMMDD of Julian dates, int64 (n,)."""
    day = np.datetime64("1858-11-17") + np.floor(jd - 2400000.5).astype("timedelta64[D]")
    year = day.astype("datetime64[Y]")
    month = day.astype("datetime64[M]")
    return (
        (year.astype(np.int64) + 1970) * 10000
        + ((month - year).astype(np.int64) + 1) * 100
        + (day - month).astype(np.int64)
        + 1
    )
