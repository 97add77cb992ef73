"""How the columns of a part are stored: encoding, codec and statistics of each leaf, told by the part's first rows.

All that is decided here depends on the schema and on the rows of the first row group, never on how they came. The rules
come from measurements on real nights of ZTF, Rubin and ELAsTiCC (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

_GZIP = b"\x1f\x8b"
_LEVEL = 1
_SMALL_BYTES = 3_072
"""zstandard sets up its tables anew for every page; for one of fewer bytes than this that is not worth its time."""
_TRIAL_BYTES = (4_096, 24_576)
"""Of a float column, tried in both encodings: first a little, and where splitting it is better, as much as zstandard
needs to find values that come again."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf column: its path in Parquet, its values, and whether it is a column itself or stands in a list."""

    path: str
    values: pa.Array
    is_top: bool
    is_repeated: bool


def leaves(table: pa.Table) -> Iterator[Leaf]:
    """Yield the leaf columns of a table in their order in Parquet."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        yield from _leaves(name, whole, is_top=True, is_repeated=False)


def _leaves(path: str, array: pa.Array, *, is_top: bool, is_repeated: bool) -> Iterator[Leaf]:
    kind = array.type
    if pa.types.is_struct(kind):
        children = array.flatten() if array.null_count else [array.field(place) for place in range(kind.num_fields)]
        for field, child in zip(kind, children, strict=True):
            yield from _leaves(f"{path}.{field.name}", child, is_top=False, is_repeated=is_repeated)
    elif pa.types.is_map(kind):
        whole = array.drop_null()
        ends = whole.offsets.to_numpy()
        entries = whole.values[int(ends[0]) : int(ends[-1])]
        for place, name in enumerate(("key", "value")):
            yield from _leaves(f"{path}.key_value.{name}", entries.field(place), is_top=False, is_repeated=True)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(f"{path}.list.element", array.flatten(), is_top=False, is_repeated=True)
    else:
        yield Leaf(path, array, is_top, is_repeated)


def writer_options(rows: pa.Table) -> dict[str, Any]:
    """Return the options of :class:`pyarrow.parquet.ParquetWriter` for a part.

    - Floats are byte-stream split where that makes their first values smaller; values that come again (an exposure's, a
      host galaxy's) are smaller as they are. In a table without lists (science) none are: that gains at most two in a
      hundred, and to find out would take half as long as to write.
    - Nothing is coded by dictionary: after zstandard it is larger for most columns, and slower for all.
    - Codec zstandard; snappy where a row group has next to nothing; none for stamps that come compressed.
    - Minimum and maximum of what rows are chosen by: columns of the table itself, and within records the ids, times and
      positions, which are 64 bits wide. None within lists, none of blobs.

    Parameters
    ----------
    rows : pyarrow.Table
        The first row group.
    """
    found = list(leaves(rows))
    codecs = {leaf.path: _codec(leaf.values) for leaf in found}
    return {
        "compression": codecs,
        "compression_level": {path: _LEVEL for path, codec in codecs.items() if codec == "zstd"} or None,
        "use_dictionary": False,
        "use_byte_stream_split": _split(found) or False,
        "write_statistics": [leaf.path for leaf in found if _has_statistics(leaf)] or False,
        "store_schema": any(field.metadata for field in rows.schema) or not _is_kept_by_parquet(rows.schema),
    }


def _codec(values: pa.Array) -> str:
    kind = values.type
    if (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and _first(values).startswith(_GZIP):
        return "none"
    return "zstd" if _bytes(values) >= _SMALL_BYTES else "snappy"


def _first(blobs: pa.Array) -> bytes:
    place = pc.index(pc.is_valid(blobs), True).as_py()
    return blobs[place].as_py() if place >= 0 else b""


def _bytes(values: pa.Array) -> int:
    """Return how many bytes values take in a page."""
    kind, count = values.type, len(values) - values.null_count
    if not count:
        return 0
    if pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind):
        return count * kind.bit_width // 8
    return 4 * count + pc.sum(pc.binary_length(values)).as_py()


def _is_blob(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _has_statistics(leaf: Leaf) -> bool:
    kind = leaf.values.type
    if leaf.is_repeated or _is_blob(kind):
        return False
    return leaf.is_top or pa.types.is_int64(kind) or pa.types.is_float64(kind)


def _split(found: Sequence[Leaf]) -> list[str]:
    if not any(leaf.is_repeated for leaf in found):
        return []
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return [leaf.path for leaf in found if _is_smaller_split(leaf.values, compressor)]


def _is_smaller_split(values: pa.Array, compressor: zstandard.ZstdCompressor) -> bool:
    kind = values.type
    if not (pa.types.is_float32(kind) or pa.types.is_float64(kind)):
        return False
    most = _TRIAL_BYTES[-1] * 8 // kind.bit_width
    sample = values[: 2 * most]
    sample = (sample.drop_null() if sample.null_count else sample)[:most].to_numpy()
    if sample.nbytes < _TRIAL_BYTES[0]:
        return False
    return all(_gains(sample[: size * 8 // kind.bit_width], compressor) for size in _TRIAL_BYTES)


def _gains(sample: np.ndarray, compressor: zstandard.ZstdCompressor) -> bool:
    split = np.ascontiguousarray(sample.view(np.uint8).reshape(len(sample), -1).T)
    return len(compressor.compress(split.data)) < len(compressor.compress(sample.data))


@lru_cache(maxsize=32)
def _is_kept_by_parquet(schema: pa.Schema) -> bool:
    """Whether Parquet's own types and names say all that a schema says: then Arrow's copy is left out of the footer."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema, store_schema=False).close()
    return pq.read_schema(pa.BufferReader(sink.getvalue())).remove_metadata().equals(schema)
