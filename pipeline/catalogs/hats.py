"""HATS catalogs on disk, ours or another's: what they hold, their rows, and a match straight from their Parquet files.

HATS (Hierarchical Adaptive Tiling Scheme, IVOA Note, https://www.ivoa.net/documents/Notes/HATS/) keeps a catalog as
Parquet files, one for each HEALPix tile, whose rows are sorted by the order-29 cell ``_healpix_29``. The statistics of
that column tell which row groups can hold a neighbour of a position; only those are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import CatalogError
from pipeline.healpix import MAX_ORDER, ang2pix, neighbours, order_for_radius
from pipeline.xmatch import MatchIndex, Nearest, nearest

PROPERTIES = ("hats.properties", "properties")
COLLECTION = "collection.properties"
_DEEPEST_OFFSETS = 8  # 6 MB, filled once a file
_SMALL_TEXT = 16 << 20  # no properties or partition list is larger


@dataclass(frozen=True)
class HatsCatalog:
    """A HATS catalog.

    Attributes
    ----------
    path : Path
        Folder of the primary table.
    name : str
        Its name.
    ra, dec : str
        Position columns.
    healpix : str or None
        Column of order-29 cells; None where the catalog has none.
    tiles : tuple of (order, pixel)
        Its tiles, ascending along the sky.
    suffix : str
        What the name of a tile's file ends with; ``/`` where a tile is a folder of files.
    rows : int or None
        How many rows it says to have.
    """

    path: Path
    name: str
    ra: str
    dec: str
    healpix: str | None
    tiles: tuple[tuple[int, int], ...]
    suffix: str = ".parquet"
    rows: int | None = None

    def files_of(self, order: int, pixel: int) -> list[Path]:
        """Return the files of a tile; raise CatalogError where they are absent."""
        suffix = "" if self.suffix == "/" else self.suffix
        place = self.path / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}{suffix}"
        found = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
        if not found or not all(file.is_file() for file in found):
            raise CatalogError(f"HATS catalog {self.path} lacks the file of tile {order}/{pixel}", source=str(place))
        return found

    def files(self) -> list[Path]:
        """Return all files, tile after tile."""
        return [file for order, pixel in self.tiles for file in self.files_of(order, pixel)]

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        common = self.path / "dataset" / "_common_metadata"
        file = common if common.is_file() else self.files()[0]
        try:
            return pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise CatalogError(f"HATS catalog is damaged: {error}", source=str(file)) from error


def open_hats(path: str | Path) -> HatsCatalog:
    """Open a HATS catalog, or the primary table of a HATS collection.

    Raises
    ------
    CatalogError
        The folder is no HATS catalog of objects or sources, or does not say where its positions stand.
    """
    folder = Path(path)
    if (folder / COLLECTION).is_file():
        primary = _properties(folder / COLLECTION).get("hats_primary_table_url", "")
        if not primary or Path(primary).is_absolute() or ".." in Path(primary).parts:
            raise CatalogError("the HATS collection names no primary table of its own", source=str(folder))
        folder = folder / primary
    file = next((folder / name for name in PROPERTIES if (folder / name).is_file()), None)
    if file is None:
        raise CatalogError(f"{folder} is no HATS catalog: it has no hats.properties", mend="name its folder")
    given = _properties(file)
    kind = given.get("dataproduct_type", "")
    if kind not in ("object", "source"):
        raise CatalogError(f"a HATS catalog of type {kind or 'unknown'} holds no objects or sources", source=str(file))
    ra, dec = (given.get(f"hats_col_{axis}") or given.get(f"hats_col_j2000_{axis}") for axis in ("ra", "dec"))
    if not ra or not dec:
        raise CatalogError("the HATS catalog does not name its position columns", source=str(file))
    tiles = _tiles(folder)
    suffix = given.get("hats_npix_suffix", ".parquet")
    rows = int(given["hats_nrows"]) if given.get("hats_nrows", "").isdigit() else None
    catalog = HatsCatalog(folder, given.get("obs_collection", folder.name), ra, dec, None, tiles, suffix, rows)
    column = given.get("hats_col_healpix", "_healpix_29")
    is_deepest = int(given.get("hats_col_healpix_order", str(MAX_ORDER)) or MAX_ORDER) == MAX_ORDER
    has_cells = bool(tiles) and is_deepest and column in catalog.schema.names
    return HatsCatalog(folder, catalog.name, ra, dec, column if has_cells else None, tiles, suffix, rows)


@dataclass(frozen=True, eq=False)
class HatsMatches:
    """The nearest source of each alert, and columns of the sources found.

    Attributes
    ----------
    nearest : Nearest
        Rows are numbered through the files in sky order.
    columns : pyarrow.Table
        The columns asked for, one row for each alert that has a neighbour, in the order of the alerts.
    groups_read, groups : int
        Row groups read, of how many there are.
    """

    nearest: Nearest
    columns: pa.Table
    groups_read: int
    groups: int


def match_parquet(
    catalog: HatsCatalog,
    ra: ArrayLike,
    dec: ArrayLike,
    radius_arcsec: ArrayLike,
    columns: Sequence[str] = (),
    healpix_29: ArrayLike | None = None,
) -> HatsMatches:
    """Find the nearest source of every alert straight from the Parquet files of a HATS catalog.

    What :func:`pipeline.xmatch.nearest` finds in the built catalog, found without building it: matches across the
    edges of tiles included, with or without margin.

    Parameters
    ----------
    catalog : HatsCatalog
        The catalog.
    ra, dec : array_like, shape (n,)
        ICRS degrees.
    radius_arcsec : float or array_like, shape (n,)
        Largest separation.
    columns : sequence of str
        Columns of the sources to return.
    healpix_29 : array_like, shape (n,), optional
        Order-29 cells of the alerts, computed where not given.

    Raises
    ------
    CatalogError
        The catalog lacks a column, has no order-29 cells to select row groups by, or is damaged.
    """
    if catalog.healpix is None:
        raise CatalogError(
            f"HATS catalog {catalog.path} has no column of order-29 HEALPix cells (_healpix_29)",
            mend="build it: alertmill catalogs build NAME FOLDER",
        )
    absent = [name for name in (catalog.ra, catalog.dec, *columns) if name not in catalog.schema.names]
    if absent:
        raise CatalogError(f"HATS catalog {catalog.path} has no column {', '.join(absent)}")
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    radius = np.broadcast_to(np.asarray(radius_arcsec, dtype=np.float64), ra.shape)
    cells = ang2pix(MAX_ORDER, ra, dec) if healpix_29 is None else np.asarray(healpix_29, dtype=np.int64)
    search = _Search(ra, dec, radius, cells, catalog)
    for number, (order, pixel) in enumerate(catalog.tiles):
        for file in catalog.files_of(order, pixel):
            try:
                search.visit(number, file, columns)
            except (OSError, pa.ArrowException) as error:
                raise CatalogError(f"HATS catalog is damaged: {error}", source=str(file)) from error
    return search.result(pa.schema([catalog.schema.field(name) for name in columns]))


class _Search:
    """The alerts, and the nearest source of each among the files visited so far."""

    def __init__(
        self,
        ra: NDArray[np.float64],
        dec: NDArray[np.float64],
        radius_arcsec: NDArray[np.float64],
        cells: NDArray[np.int64],
        catalog: HatsCatalog,
    ) -> None:
        self._ra, self._dec, self._radius, self._cells = ra, dec, radius_arcsec, cells
        self._catalog, self._healpix = catalog, str(catalog.healpix)
        n = len(ra)
        self._row = np.full(n, -1, dtype=np.int64)
        self._separation = np.full(n, np.inf)
        self._count = np.zeros(n, dtype=np.int32)
        self._slot = np.full(n, -1, dtype=np.int64)
        self._found: list[pa.Table] = []
        self._slots = self._rows_before = self._groups = self._groups_read = 0
        self._near, self._shift, self._keys = self._plan()

    def _plan(self) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
        """Return the cells that neighbours may lie in, sorted, their shift, and (tile, alert) as tile * n + alert."""
        n, tiles = len(self._ra), self._catalog.tiles
        usable = np.flatnonzero((self._cells >= 0) & (self._radius >= 0.0))
        largest = float(self._radius[usable].max()) if len(usable) else 0.0
        order = order_for_radius(largest / 3600.0)
        if order < 0:  # anywhere on the sky
            everything = (np.arange(len(tiles))[:, None] * n + usable).ravel()
            return np.arange(12 if len(usable) else 0), 2 * MAX_ORDER, everything
        shift = 2 * (MAX_ORDER - order)
        own = self._cells[usable] >> shift
        near = np.concatenate([own[:, None], neighbours(order, own)], axis=1)
        alerts = np.broadcast_to(usable[:, None], near.shape)[near >= 0]
        near = near[near >= 0]
        starts = np.array([pixel << (2 * (MAX_ORDER - deep)) for deep, pixel in tiles], dtype=np.int64)
        stops = np.array([(pixel + 1) << (2 * (MAX_ORDER - deep)) for deep, pixel in tiles], dtype=np.int64)
        first = np.searchsorted(stops, near << shift, side="right")
        count = np.maximum(np.searchsorted(starts, (near + 1) << shift, side="left") - first, 0)
        keys = np.repeat(first * n + alerts, count)
        if count.size and count.max() > 1:  # a cell as large as several tiles
            keys += n * (np.arange(len(keys)) - np.repeat(np.cumsum(count) - count, count))
        keys.sort()
        near.sort()
        return near, shift, keys[np.diff(keys, prepend=-1) != 0]

    def visit(self, tile: int, file: Path, columns: Sequence[str]) -> None:
        """Match with the rows of one file of a tile, reading only row groups that can hold a neighbour."""
        n = len(self._ra)
        low, high = np.searchsorted(self._keys, [tile * n, (tile + 1) * n])
        alerts = self._keys[low:high] - tile * n
        with pq.ParquetFile(file, memory_map=True) as opened:
            metadata = opened.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            begins = self._rows_before + np.cumsum([0, *sizes])
            self._rows_before = int(begins[-1])
            self._groups += len(sizes)
            wanted = self._wanted(metadata) if len(alerts) else np.empty(0, dtype=np.int64)
            if not len(wanted):
                return
            self._groups_read += len(wanted)
            names = [self._healpix, self._catalog.ra, self._catalog.dec]
            positions = opened.read_row_groups(wanted.tolist(), columns=names, use_threads=False).select(names)
            rows = np.concatenate([np.arange(begins[group], begins[group + 1]) for group in wanted])
            alerts, rows = self._match(alerts, positions, rows)
            if columns and len(rows):
                self._found.append(_read_rows(opened, rows, begins, columns))
        self._slot[alerts] = self._slots + np.arange(len(alerts))
        self._slots += len(alerts)

    def _wanted(self, metadata: pq.FileMetaData) -> NDArray[np.int64]:
        """Return the row groups whose cells meet those of the alerts."""
        number = next(k for k in range(metadata.num_columns) if metadata.schema.column(k).path == self._healpix)
        ends = np.empty((metadata.num_row_groups, 2), dtype=np.int64)
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(number).statistics
            known = statistics is not None and statistics.has_min_max
            ends[group] = (statistics.min, statistics.max) if known else (0, (12 << (2 * MAX_ORDER)) - 1)
        ends >>= self._shift
        first = np.searchsorted(self._near, ends[:, 0], side="left")
        return np.flatnonzero(first < np.searchsorted(self._near, ends[:, 1], side="right"))

    def _match(
        self, alerts: NDArray[np.int64], positions: pa.Table, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the alerts that have a nearer source among these rows than before, and that source's row."""
        cells = np.asarray(positions.column(0).to_numpy(), dtype=np.int64)
        ra, dec = (np.asarray(positions.column(k).to_numpy(), dtype=np.float64) for k in (1, 2))
        if not (cells[1:] >= cells[:-1]).all():
            turn = np.argsort(cells, kind="stable")
            cells, ra, dec, rows = cells[turn], ra[turn], dec[turn], rows[turn]
        if len(ra) and not (np.nanmin(ra) >= 0.0 and np.nanmax(ra) < 360.0):
            ra = np.remainder(ra, 360.0)
        found = nearest(
            self._ra[alerts],
            self._dec[alerts],
            self._radius[alerts],
            _index(cells, ra, dec),
            healpix_29=self._cells[alerts],
        )
        has = found.row >= 0
        alerts, row, separation = alerts[has], rows[found.row[has]], found.separation_arcsec[has]
        self._count[alerts] += found.n_neighbours[has]
        better = (separation < self._separation[alerts]) | (
            (separation == self._separation[alerts]) & (row < self._row[alerts])
        )
        alerts, row = alerts[better], row[better]
        self._separation[alerts], self._row[alerts] = separation[better], row
        return alerts, row

    def result(self, schema: pa.Schema) -> HatsMatches:
        """Return what was found."""
        has = self._row >= 0
        found = pa.concat_tables([schema.empty_table(), *self._found])
        taken = found.take(pa.array(self._slot[has])) if schema.names else found
        separation = np.where(has, self._separation, np.nan)
        return HatsMatches(Nearest(self._row, separation, self._count), taken, self._groups_read, self._groups)


def _index(cells: NDArray[np.int64], ra: NDArray[np.float64], dec: NDArray[np.float64]) -> MatchIndex:
    """Return the match index of rows that lie together on a small part of the sky."""
    low, high = (int(cells[0]), int(cells[-1])) if len(cells) else (0, 0)
    span = max(1, (high - low).bit_length())
    order = min(_DEEPEST_OFFSETS, max(0, MAX_ORDER - (span - max(0, len(cells).bit_length() - 4)) // 2))
    shift = 2 * (MAX_ORDER - order)
    offsets = np.full((12 << (2 * order)) + 1, len(cells), dtype=np.int64)
    edges = np.arange(low >> shift, (high >> shift) + 1, dtype=np.int64)
    offsets[: low >> shift] = 0
    offsets[edges] = np.searchsorted(cells, edges << shift)
    return MatchIndex(cells, ra, dec, offsets, order)


def _read_rows(
    opened: pq.ParquetFile, rows: NDArray[np.int64], begins: NDArray[np.int64], columns: Sequence[str]
) -> pa.Table:
    """Return columns of some rows of a file; ``begins`` tells where its row groups start."""
    group = np.searchsorted(begins, rows, side="right") - 1
    used = np.flatnonzero(np.bincount(group))
    table = opened.read_row_groups(used.tolist(), columns=list(columns), use_threads=False).select(list(columns))
    sizes = np.diff(begins)[used]
    ahead = np.zeros(len(begins), dtype=np.int64)
    ahead[used] = begins[used] - (np.cumsum(sizes) - sizes)
    return table.take(pa.array(rows - ahead[group]))


def _properties(file: Path) -> dict[str, str]:
    """Read a Java properties file, as far as HATS uses them: ``key = value`` lines, ``#`` and ``!`` comments."""
    pairs = (line.partition("=") for line in _text(file).splitlines() if line.strip()[:1] not in ("", "#", "!"))
    return {key.strip(): value.strip().replace("\\:", ":").replace("\\=", "=") for key, _, value in pairs}


def _tiles(folder: Path) -> tuple[tuple[int, int], ...]:
    file = folder / "partition_info.csv"
    lines = [line.split(",") for line in _text(file).splitlines() if line.strip()] if file.is_file() else []
    try:
        if lines:
            head = [name.strip() for name in lines[0]]
            order, pixel = head.index("Norder"), head.index("Npix")
            tiles = {(int(line[order]), int(line[pixel])) for line in lines[1:]}
        else:
            places = (folder / "dataset").glob("Norder=*/Dir=*/Npix=*")
            tiles = {(int(p.parts[-3][7:]), int(p.name[5:].partition(".")[0])) for p in places}
    except (ValueError, IndexError) as error:
        raise CatalogError(f"list of tiles is damaged: {error}", source=str(file)) from error
    return tuple(sorted(tiles, key=lambda item: item[1] << (2 * (MAX_ORDER - item[0]))))


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _SMALL_TEXT:
            raise CatalogError(f"{file.name} is larger than {_SMALL_TEXT} bytes", source=str(file))
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{file.name} cannot be read: {error}", source=str(file)) from error
