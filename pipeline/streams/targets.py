"""A table of the user's: positions, each with a radius of its own if wanted, and motion if known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.followup.files import read_table

MOST_ROWS = 10_000_000
_RA_NAMES = ("ra", "ra_deg", "ra_icrs", "raj2000", "_raj2000", "raj2000_deg")
_DEC_NAMES = ("dec", "dec_deg", "de_icrs", "dej2000", "_dej2000", "decj2000", "dej2000_deg", "decl")


@dataclass(frozen=True)
class Targets:
    """Rows of a table that are looked for.

    Attributes
    ----------
    ra, dec : numpy.ndarray, shape (n,)
        ICRS degrees, NaN without a position: such a row is never found.
    radius_arcsec : numpy.ndarray, shape (n,) or (1,)
        How far from each row an alert may be; of all rows, if one.
    id : pyarrow.ChunkedArray or None
        The table's own column of identifiers, as it is there.
    pmra, pmdec : numpy.ndarray, shape (n,), or None
        Proper motion in mas/yr, ``pmra`` times cos(dec); NaN where unknown.
    epoch : float
        Julian year of the positions; of no matter without motion.
    """

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    radius_arcsec: NDArray[np.float64]
    id: pa.ChunkedArray | None = field(default=None, compare=False)
    pmra: NDArray[np.float64] | None = None
    pmdec: NDArray[np.float64] | None = None
    epoch: float = 2000.0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ra)


def read_targets(
    path: str | Path,
    *,
    radius_arcsec: float | None = None,
    radius_column: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    id_column: str | None = None,
    motion: tuple[str, str] | None = None,
    epoch: float = 2000.0,
) -> Targets:
    """Read the user's table: Parquet, CSV, FITS or VOTable, up to 10 million rows.

    Parameters
    ----------
    radius_arcsec, radius_column
        One radius for all, or the column that has each row's own (arcsec; null or not above 0: never found).
    ra, dec : str, optional
        Columns of the position in degrees; by default those of the usual names, in any case.
    id_column : str, optional
        Column to keep; by default ``id``, if there is one.
    motion : tuple of str, optional
        Columns of the proper motion, mas/yr, ``pmra`` times cos(dec) first.
    epoch : float
        Julian year of the positions.

    Raises
    ------
    InputError
        The file cannot be read, has too many rows, lacks a column or has it twice, or a column holds no numbers; not
        exactly one radius is given, or radius or epoch make no sense.
    """
    if (radius_arcsec is None) == (radius_column is None):
        raise InputError("give one radius", mend="either --radius-arcsec NUMBER or --radius-column NAME")
    if radius_arcsec is not None and not 0.0 < radius_arcsec <= 648_000.0:
        raise InputError(f"a radius of {radius_arcsec:g} arcsec is not above 0 and at most 180 deg")
    if not 1800.0 <= epoch <= 2200.0:
        raise InputError(f"epoch {epoch:g} is not a year from 1800 to 2200")
    file = Path(path)
    is_parquet = file.suffix.lower() in (".parquet", ".pq") and file.is_file()
    table = pa.table({}) if is_parquet else read_table(file)
    names = _parquet_names(file) if is_parquet else list(table.column_names)
    ra_name = _find(ra, _RA_NAMES, names, "right ascension", "--ra", file)
    dec_name = _find(dec, _DEC_NAMES, names, "declination", "--dec", file)
    id_name = id_column or next((name for name in names if name.lower() == "id"), None)
    asked = [ra_name, dec_name, id_name, radius_column, *(motion or ())]
    wanted = list(dict.fromkeys(name for name in asked if name is not None))
    for name in wanted:
        if name not in names:
            raise InputError(f"table {path} has no column {name}", mend=f"it has {_told(names)}")
        if names.count(name) > 1:
            raise InputError(f"table {path} has column {name} more than once", mend="rename all but one")
    if is_parquet:
        table = _read_parquet(file, wanted)
    if len(table) > MOST_ROWS:
        raise InputError(f"table {path} has {len(table):,} rows, at most {MOST_ROWS:,} are matched", mend="split it")
    moves = [_numbers(table, name, file) for name in motion or ()]
    return Targets(
        _numbers(table, ra_name, file),
        _numbers(table, dec_name, file),
        np.array([radius_arcsec]) if radius_column is None else _numbers(table, radius_column, file),
        None if id_name is None else table.column(id_name),
        moves[0] if moves else None,
        moves[1] if moves else None,
        epoch,
    )


def _parquet_names(file: Path) -> list[str]:
    try:
        return list(pq.read_schema(file).names)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"table cannot be read: {error}", source=str(file)) from error


def _read_parquet(file: Path, wanted: Sequence[str]) -> pa.Table:
    """Read some columns; of a table with too many rows none."""
    try:
        with pq.ParquetFile(file) as opened:
            if opened.metadata.num_rows > MOST_ROWS:
                return pa.table({wanted[0]: pa.nulls(opened.metadata.num_rows)})
            return opened.read(columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"table cannot be read: {error}", source=str(file)) from error


def _find(named: str | None, usual: tuple[str, ...], names: Sequence[str], what: str, option: str, file: Path) -> str:
    if named is not None:
        return named
    for wanted in usual:
        for name in names:
            if name.lower() == wanted:
                return name
    raise InputError(
        f"table {file} has no column of a usual name for the {what}",
        mend=f"name it with {option}; it has {_told(names)}",
    )


def _told(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")


def _numbers(table: pa.Table, name: str, file: Path) -> NDArray[np.float64]:
    data = table.column(name)
    if not (pa.types.is_floating(data.type) or pa.types.is_integer(data.type) or pa.types.is_null(data.type)):
        raise InputError(f"column {name} holds {data.type}, not numbers", source=str(file), mend="give degrees")
    values = pc.cast(data, pa.float64(), safe=False)
    return np.array(pc.fill_null(values, float("nan")).to_numpy(), dtype=np.float64)
