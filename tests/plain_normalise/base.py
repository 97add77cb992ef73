"""What a survey is to the rest of alertmill, and how its packets' columns are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.healpix import MAX_ORDER, ang2pix
from pipeline.schema import conform
from pipeline.tables import ALERTS, LIGHT_CURVE_TYPE, UPPER_LIMITS_TYPE
from plain_normalise import lightcurve as lc
from plain_normalise.lightcurve import Bool, Float, Int, Points


# ------------------------------------------------------------------------------------------------ reading columns
class Records:
    """Columns of a table, or children of a struct array, by name; a column that is not there is all null.

    Parameters
    ----------
    source : pyarrow.Table or pyarrow.Array
        Native columns, or a column of structs (None where the survey shipped none, with ``n``).
    sentinels : tuple of float
        What this survey writes for "no number".
    n : int
        Number of rows, where there is no source.
    """

    def __init__(
        self, source: pa.Table | pa.Array | None, sentinels: tuple[float, ...] = (), n: int | None = None
    ) -> None:
        self._source = source
        self._sentinels = sentinels
        if source is not None:
            n = len(source) if not isinstance(source, pa.Table) else source.num_rows
        self.n = n or 0
        if source is None or (not isinstance(source, pa.Table) and not pa.types.is_struct(source.type)):
            self._names: set[str] = set()
        elif isinstance(source, pa.Table):
            self._names = set(source.column_names)
        else:
            self._names = {field.name for field in source.type}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def array(self, *names: str) -> pa.Array:
        """Return the first of these columns that is there; where it is null, the next one's value."""
        found = [self._array(name) for name in names if name in self._names]
        found = [array for array in found if not pa.types.is_null(array.type)]
        if not found:
            return pa.nulls(self.n)
        merged = found[0]
        for other in found[1:]:
            if merged.null_count:
                merged = pc.coalesce(merged, other.cast(merged.type))
        return merged

    def _array(self, name: str) -> pa.Array:
        source = self._source
        if isinstance(source, pa.Table):
            column = source.column(name)
            return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        return pc.struct_field(source, name)  # takes over the nulls of the parent

    def floats(self, *names: str, sentinels: tuple[float, ...] | None = None) -> Float:
        """Return float64 (n,); null, infinite and the survey's sentinels (or those given) as NaN."""
        values = lc.floats(self.array(*names))
        bad = ~np.isfinite(values)
        for sentinel in self._sentinels if sentinels is None else sentinels:
            bad |= values == sentinel
        return np.where(bad, np.nan, values) if bad.any() else values

    def integers(self, *names: str) -> Int:
        """Return int64 (n,); null as :data:`pipeline.lightcurve.MISSING`."""
        return lc.integers(self.array(*names))

    def ids(self, *names: str) -> Int:
        """Return ids, int64 (n,); null, 0 and negative ones as :data:`pipeline.lightcurve.MISSING`."""
        values = self.integers(*names)
        return np.where(values > 0, values, lc.MISSING)

    def codes(self, labels: Sequence[str], *names: str) -> NDArray[np.int8]:
        """Return places in ``labels``, int8 (n,), -1 where unknown."""
        return lc.codes(self.array(*names), labels)

    def text(self, *names: str) -> pa.Array:
        """Return strings (n,); '', 'null', 'None' and 'nan' as null."""
        array = self.array(*names).cast(pa.string())
        nothing = pc.is_in(array, value_set=pa.array(["", "null", "None", "nan"]))
        return pc.if_else(nothing, pa.scalar(None, pa.string()), array)

    def flags(self, *names: str) -> pa.Array:
        """Return booleans (n,), null where the survey says nothing."""
        return self.array(*names).cast(pa.bool_())

    def record(self, name: str) -> Records:
        """Return the children of a struct column."""
        return Records(self._array(name) if name in self._names else None, self._sentinels, self.n)

    def records(self, name: str) -> tuple[Int, Records]:
        """Return the row of every element, int64 (m,), and the elements of a list-of-struct column."""
        if name not in self._names or not _is_list(self._array(name).type):
            return np.zeros(0, dtype=np.int64), Records(None, self._sentinels, 0)
        ends, elements = lc.list_rows(self._array(name))
        return lc.row_of_point(ends), Records(elements, self._sentinels)


def _is_list(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) or pa.types.is_large_list(dtype)


# ------------------------------------------------------------------------------------------------ writing columns
def nullable(values: NDArray, dtype: pa.DataType | None = None) -> pa.Array:
    """Return an Arrow array, NaN and :data:`pipeline.lightcurve.MISSING` as null."""
    if values.dtype == np.int64:
        array = pa.array(values, mask=values == lc.MISSING)
    else:
        array = pa.array(values, from_pandas=True)
    return array.cast(dtype) if dtype is not None and array.type != dtype else array


def labels(code: NDArray[np.int8], names: Sequence[str]) -> pa.Array:
    """Return strings (n,) of codes, -1 as null."""
    return pc.take(pa.array(names, pa.string()), pa.array(code, mask=code < 0))


def first_known(*choices: Int) -> Int:
    """Return per element the first value that is not :data:`pipeline.lightcurve.MISSING`."""
    out = choices[0]
    for other in choices[1:]:
        out = np.where(out == lc.MISSING, other, out)
    return out


def first_fault(n: int, tests: Sequence[tuple[Bool, str]]) -> pa.Array:
    """Return per row the first reason whose mask is set, string (n,), null where none is."""
    which = np.full(n, -1, dtype=np.int8)
    for place in range(len(tests) - 1, -1, -1):
        which[tests[place][0]] = place
    return labels(which, [reason for _, reason in tests])


def position_faults(ra: Float, dec: Float) -> list[tuple[Bool, str]]:
    """Return the tests of a position, for :func:`first_fault`."""
    with np.errstate(invalid="ignore"):
        off = ~((np.abs(dec) <= 90.0) & (ra >= -360.0) & (ra <= 720.0))
    finite = np.isfinite(ra) & np.isfinite(dec)
    return [(~finite, "position is missing or not finite"), (finite & off, "position is not on the sky")]


def assemble(
    columns: dict[str, pa.Array | NDArray],
    points: Points,
    limits: Points,
    bands: Sequence[str],
) -> pa.Table:
    """Return the ``alerts`` table: flat columns, light curve, upper limits, and the counts that follow from them.

    Parameters
    ----------
    columns : dict
        Flat columns by name, (n,); one that the survey does not have may be left out and is null.
    points, limits : Points
        Measurements and non-detections, in any order of rows.
    bands : sequence of str
        The survey's bands.
    """
    n = len(columns["alert_id"])
    points = lc.in_time_order(points)
    limits = lc.in_time_order(limits)
    ends = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(points.row, minlength=n), out=ends[1:])
    is_primary = lc.is_primary(ends, points.exposure, points.band, points.is_forced)
    ra, dec = columns["ra"], columns["dec"]
    columns = {
        **columns,
        "healpix_29": ang2pix(MAX_ORDER, np.asarray(ra), np.asarray(dec)),
        "n_detections": lc.count(ends, is_primary & ~points.is_forced),
        "n_light_curve": lc.count(ends),
        "n_upper_limits": np.bincount(limits.row, minlength=n).astype(np.int32),
        "light_curve": lc.to_struct(points, n, bands, LIGHT_CURVE_TYPE),
        "upper_limits": lc.to_struct(limits, n, bands, UPPER_LIMITS_TYPE),
    }
    arrays = []
    for field in ALERTS:
        data = columns.get(field.name)
        if data is None:
            data = pa.nulls(n, field.type)
        elif isinstance(data, np.ndarray):
            data = nullable(data, field.type)
        arrays.append(data.cast(field.type) if data.type != field.type else data)
    return conform(pa.table(arrays, names=ALERTS.names), ALERTS, dataset="alerts")
