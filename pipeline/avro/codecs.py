"""Codecs of Avro containers, with a bound on what a block may inflate to."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cramjam
import zstandard


def _null(data: bytes, limit: int) -> bytes:
    return data


def _deflate(data: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(-15)
    out = inflater.decompress(data, limit + 1)
    if len(out) <= limit and not inflater.eof:
        raise ValueError("deflate stream is cut")
    return out


def _snappy(data: bytes, limit: int) -> bytes:
    if len(data) < 5:
        raise ValueError("snappy block of fewer than 5 bytes")
    block = data[:-4]
    if cramjam.snappy.decompress_raw_len(block) > limit:
        raise ValueError(f"snappy block of more than {limit} bytes")
    out = bytes(cramjam.snappy.decompress_raw(block))
    if zlib.crc32(out) != int.from_bytes(data[-4:], "big"):
        raise ValueError("snappy checksum differs")
    return out


def _zstandard(data: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        return reader.read(limit + 1)


CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": _null,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
}


def decompress(data: bytes, codec: str, limit: int) -> bytes:
    """Return the data of a block.

    Parameters
    ----------
    data : bytes
        As stored.
    codec : str
        One of :data:`CODECS`.
    limit : int
        Most bytes that it may inflate to.

    Raises
    ------
    ValueError
        It is damaged, or inflates to more: every failure of a codec library becomes this one.
    """
    try:
        out = CODECS[codec](data, limit)
    except Exception as error:
        raise ValueError(f"{codec} block is damaged: {' '.join(str(error).split())[:120]}") from None
    if codec != "null" and len(out) > limit:
        raise ValueError(f"{codec} block of more than {limit} bytes")
    return out
