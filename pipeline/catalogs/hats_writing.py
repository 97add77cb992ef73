"""Write a catalog as a HATS collection: the primary table in tiles, and its margin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.catalogs.payload import Payload
from pipeline.catalogs.tiles import Tile, margin_rows, tile
from pipeline.schema import column
from pipeline.xmatch import CatalogDeclaration, MatchIndex

ROW_GROUP = 65_536
POSITION = (
    column("_healpix_29", pa.int64(), nullable=False, doc="nested HEALPix cell of order 29"),
    column("ra", pa.float64(), nullable=False, unit="deg", doc="right ascension, ICRS"),
    column("dec", pa.float64(), nullable=False, unit="deg", doc="declination, ICRS"),
)
_CREATED = "2000-01-01T00:00UTC"  # one and the same, so that equal input gives equal bytes
_VERSION = "v1.0"

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""


def write_collection(
    folder: Path, declaration: CatalogDeclaration, index: MatchIndex, payload: Payload, progress: Progress
) -> None:
    """Write the HATS collection of a catalog into a folder.

    Parameters
    ----------
    folder : path
        An existing folder.
    declaration : CatalogDeclaration
        Gives name and margin.
    index : MatchIndex
        Its positions.
    payload : Payload
        Its columns, in the order of the index.
    progress : callable
        Told of every tile.
    """
    name, threshold = declaration.name, declaration.margin_arcsec
    margin = f"{name}_{threshold:g}arcs"
    tiles = tile(index.healpix_29)
    schema = pa.schema([*POSITION, *_documented(declaration)])
    table = _Table(folder / name, schema)
    near = _Table(folder / margin, schema)
    for done, at in enumerate(tiles):
        progress("tiles", done, len(tiles))
        rows = margin_rows(at, index.healpix_29, index.ra, index.dec, threshold)
        # A tile without rows of its own stands only for those in its margin: LSDB matches within tiles that are there.
        if len(rows) or at.start < at.stop:
            table.write(at, _pieces(index, payload, schema, at.start, at.stop))
        if len(rows):
            near.write(at, iter([_at(index, payload, schema, rows)]))
    table.finish({"obs_collection": name, "dataproduct_type": "object"})
    near.finish(
        {
            "obs_collection": margin,
            "dataproduct_type": "margin",
            "hats_primary_table_url": name,
            "hats_margin_threshold": repr(threshold),
        }
    )
    _properties(
        folder / "collection.properties",
        "HATS Collection",
        {
            "obs_collection": name,
            "hats_primary_table_url": name,
            "all_margins": margin,
            "default_margin": margin,
        },
    )


class _Table:
    """One HATS table that is being written, tile after tile."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._tiles: list[Tile] = []
        self._rows = self._most = 0
        (folder / "dataset").mkdir(parents=True)

    def write(self, at: Tile, pieces: Iterator[pa.Table]) -> None:
        """Write one tile; its pieces become row groups."""
        file = self._folder / "dataset" / at.path
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = 0
        with pq.ParquetWriter(
            file,
            self._schema,
            # Positions are noise to a compressor: it would gain a tenth and cost readers most of their time.
            compression={item.name: "none" if item in POSITION else "zstd" for item in self._schema},
            use_dictionary=[item.name for item in self._schema if pa.types.is_string(item.type)],
            column_encoding={"_healpix_29": "DELTA_BINARY_PACKED"},
        ) as writer:
            for piece in pieces:
                writer.write_table(piece, row_group_size=ROW_GROUP)
                rows += len(piece)
        self._tiles.append(at)
        self._rows, self._most = self._rows + rows, max(self._most, rows)

    def finish(self, facts: dict[str, str]) -> None:
        """Write what stands beside the tiles."""
        pq.write_metadata(self._schema, self._folder / "dataset" / "_common_metadata")
        lines = "".join(f"{at.order},{at.pixel}\n" for at in self._tiles)
        (self._folder / "partition_info.csv").write_text("Norder,Npix\n" + lines, encoding="ascii")
        sky = sum(1.0 / (12 << (2 * at.order)) for at in self._tiles)
        values = {
            **facts,
            "hats_nrows": str(self._rows),
            "hats_col_ra": "ra",
            "hats_col_dec": "dec",
            "hats_col_healpix": "_healpix_29",
            "hats_col_healpix_order": "29",
            "hats_npix_suffix": ".parquet",
            "hats_max_rows": str(self._most),
            "hats_order": str(max((at.order for at in self._tiles), default=0)),
            "moc_sky_fraction": f"{sky:.8f}",
            "hats_builder": "alertmill",
            "hats_creation_date": _CREATED,
            "hats_version": _VERSION,
        }
        for name in ("hats.properties", "properties"):
            _properties(self._folder / name, "HATS catalog", values)


def _documented(declaration: CatalogDeclaration) -> list[pa.Field]:
    return [column(item.name, item.arrow_type, unit=item.unit or None, doc=item.doc) for item in declaration.columns]


def _pieces(index: MatchIndex, payload: Payload, schema: pa.Schema, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield consecutive rows of the catalog as tables of whole row groups."""
    for first in range(start, stop, ROW_GROUP):
        last = min(first + ROW_GROUP, stop)
        columns = [] if not payload.schema.names else pa.concat_tables(payload.slices(first, last)).columns
        yield _table(index, columns, schema, slice(first, last))


def _at(index: MatchIndex, payload: Payload, schema: pa.Schema, rows: NDArray[np.int64]) -> pa.Table:
    return _table(index, payload.take(rows, payload.schema.names).columns, schema, rows)


def _table(
    index: MatchIndex, columns: Sequence[pa.ChunkedArray], schema: pa.Schema, rows: slice | NDArray[np.int64]
) -> pa.Table:
    positions = [pa.array(values[rows]) for values in (index.healpix_29, index.ra, index.dec)]
    return pa.table([*positions, *columns], schema=schema)


def _properties(file: Path, title: str, values: dict[str, str]) -> None:
    text = "".join(f"{key}={value}\n" for key, value in values.items())
    file.write_text(f"#{title}\n{text}", encoding="ascii")
