"""What a survey is to the rest of alertmill, and how its ``alerts`` table is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import lightcurve as lc
from pipeline.healpix import MAX_ORDER, ang2pix
from pipeline.lightcurve import Bool, Float, Int, Order, Points
from pipeline.luminosity import Passband
from pipeline.schema import conform
from pipeline.tables import ALERTS, LIGHT_CURVE_TYPE, UPPER_LIMITS_TYPE


@dataclass(frozen=True)
class Survey:
    """A survey: data plus pure functions over ``raw`` tables (native columns) and ``alerts`` tables.

    Attributes
    ----------
    name : str
        Name on the command line and in paths.
    bands : tuple of str
        Bands, from blue to red.
    passbands : mapping
        Wavelength and extinction of each band.
    cutout_columns : tuple of str
        Native columns that hold the stamps.
    alert_id : callable
        ``raw -> int64 (n,)``, null where the packet has none.
    faults : callable
        ``raw -> string (n,)``: null, or why the row cannot be normalised.
    normalise : callable
        ``raw`` (rows without fault) ``-> alerts``, same rows, same order.
    night_of : callable
        ``alerts -> int32 (n,)``, observing night as YYYYMMDD.
    night_disagreement : callable
        ``(raw, alerts) -> bool (n,)``: the survey's own night number says otherwise.
    processed_mjd : callable
        ``raw -> float64 (n,)``: the survey's processing time (TAI), null where it gives none.
    forced_losses : callable
        ``raw -> dict``: forced points shipped that are no measurement, counted by reason.
    night_over_hours : float
        Hours, counted from 0 h UTC of the date that names a night, after which that night is surely over.
    """

    name: str
    bands: tuple[str, ...]
    passbands: Mapping[str, Passband] = field(hash=False)
    cutout_columns: tuple[str, ...]
    alert_id: Callable[[pa.Table], pa.Array]
    faults: Callable[[pa.Table], pa.Array]
    normalise: Callable[[pa.Table], pa.Table]
    night_of: Callable[[pa.Table], NDArray[np.int32]]
    night_disagreement: Callable[[pa.Table, pa.Table], Bool]
    processed_mjd: Callable[[pa.Table], pa.Array]
    forced_losses: Callable[[pa.Table], dict[str, int]]
    night_over_hours: float

    def last_night(self, when: datetime) -> int:
        """Return the last night, YYYYMMDD, that is over at a time (with time zone)."""
        return int((when.astimezone(UTC) - timedelta(hours=self.night_over_hours)).strftime("%Y%m%d"))

    @cached_property
    def superset(self) -> pa.Schema:
        """Schema that holds every known version of this survey's packets, cutouts included."""
        from pipeline.surveys.superset import known_schemas, superset  # reads package data: only when asked

        return superset(list(known_schemas(self.name).values()))

    def version_rank(self, version: str) -> tuple[int, ...]:
        """Return what orders schema versions: ``"11.1"`` after ``"9.0"``; text without numbers comes first."""
        return version_rank(version)


def version_rank(version: str) -> tuple[int, ...]:
    """Return the numbers of a version as a tuple.

    The ZTF minor version is a decimal fraction ("4.02" follows "4.01" and precedes "4.1"); comparing integers gives
    the same order for every version in use.
    """
    digits = "".join(c if c.isdigit() else " " for c in version)
    return tuple(int(part) for part in digits.split())


# ------------------------------------------------------------------------------------------------ writing columns
def nullable(values: NDArray, dtype: pa.DataType | None = None) -> pa.Array:
    """Return an Arrow array, NaN and :data:`pipeline.lightcurve.MISSING` as null."""
    if values.dtype == np.int64:
        array = pa.array(values, mask=values == lc.MISSING)
    elif dtype == pa.float32():
        with np.errstate(over="ignore"):
            array = pa.array(values.astype(np.float32), from_pandas=True)
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
    curve: tuple[Points, Order],
    limits: tuple[Points, Order],
    bands: Sequence[str],
) -> pa.Table:
    """Return the ``alerts`` table: flat columns, light curve, upper limits, and the counts that follow from them.

    Parameters
    ----------
    columns : dict
        Flat columns by name, (n,); one that the survey does not have may be left out and is null.
    curve, limits : tuple of Points and Order
        Measurements and non-detections, and which of them stand in which order.
    bands : sequence of str
        The survey's bands.
    """
    n = len(columns["alert_id"])
    points, order = curve
    ra, dec = columns["ra"], columns["dec"]
    columns = {
        **columns,
        "healpix_29": ang2pix(MAX_ORDER, np.asarray(ra), np.asarray(dec)),
        "n_detections": lc.count_detections(points, order),
        "n_light_curve": lc.count(order.ends),
        "n_upper_limits": lc.count(limits[1].ends),
        "light_curve": lc.to_struct(points, n, bands, LIGHT_CURVE_TYPE, order),
        "upper_limits": lc.to_struct(limits[0], n, bands, UPPER_LIMITS_TYPE, limits[1]),
    }
    arrays = []
    for item in ALERTS:
        data = columns.get(item.name)
        if data is None:
            data = pa.nulls(n, item.type)
        elif isinstance(data, np.ndarray):
            data = nullable(data, item.type)
        arrays.append(data.cast(item.type) if data.type != item.type else data)
    return conform(pa.table(arrays, names=ALERTS.names), ALERTS, dataset="alerts")
