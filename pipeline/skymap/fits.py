"""Sky maps from FITS bytes: multi-order and flat HEALPix, whole or of a part of the sky, with or without distance."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.healpix.fits import FitsError, Table, read_table
from pipeline.night import utc_to_tai
from pipeline.skymap.maps import DEG2_PER_SR, SkyMap, event_name, make_skymap, mark_changes

Intervals = tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.float64]]]

_DISTANCE = {"DISTMU": "distance_mu_mpc", "DISTSIGMA": "distance_sigma_mpc", "DISTNORM": "distance_norm"}
_PROBABILITY = ("PROB", "PROBABILITY", "PROBDENSITY")
_PIXEL = ("PIXEL", "PIX", "HPX_PIXEL")
_UNIX_EPOCH_MJD = 40587.0
_EQUATORIAL = ("C", "CEL", "CELESTIAL", "EQ", "EQU", "EQUATORIAL", "ICRS", "FK5", "RADEC", "J2000")
_NO_EVENT = ("FULLSKY", "PARTIAL", "ALLSKY", "UNKNOWN", "0")
"""What writers put into OBJECT that is no event's name: how much of the sky there is, or a number never set."""
_UNSEEN = -1.6375e30
"""What HEALPix writers put where there is no pixel."""


def parse_skymap(data: bytes, event: str | None = None, source: str = "sky map", fallback: str | None = None) -> SkyMap:
    """Read a HEALPix map from FITS bytes.

    Parameters
    ----------
    data : bytes
        FITS, gzip-compressed or not: multi-order (UNIQ, PROBDENSITY) or flat (PROB or PROBABILITY, in rows of one
        pixel or of many; nested or ring; of the whole sky or, with PIXEL, of a part), each with DISTMU, DISTSIGMA,
        DISTNORM or without. Densities are per steradian, else per square degree or pixel where the column's unit
        says so; probabilities are per pixel, else as their unit says.
    event : str, optional
        Name of the event; default the header's OBJECT.
    source : str
        Named in errors.
    fallback : str, optional
        Name of the event where neither ``event`` nor the header gives one.

    Raises
    ------
    CatalogError
        The bytes are no such map, damaged, or beyond 2 GiB once inflated; pixels overlap; a probability is negative
        or not a number, or they do not sum to 1 within 1 %; coordinates are not equatorial; the event has no name.
    """
    try:
        table = read_table(data)
    except FitsError as error:
        raise CatalogError(f"sky map cannot be read as FITS: {error}", source=source) from error
    header = table.header
    system = str(header.get("COORDSYS", "")).strip().upper() or "C"
    if system not in _EQUATORIAL:
        raise CatalogError(
            f"sky map is in coordinates {system[:20]}, not equatorial", source=source, mend="rotate it to ICRS"
        )
    named = str(header.get("OBJECT", "")).strip()
    if event is None:
        event = (fallback or "") if named.upper() in ("", *_NO_EVENT) else named
    name = event_name(event)
    if not name:
        raise CatalogError("sky map names no event", source=source, mend="name it: EVENT=FILE")
    try:
        start, stop, values = (_multi_order if "UNIQ" in table.fields else _flat)(table)
    except ValueError as error:
        raise CatalogError(f"sky map is not understood: {error}", source=source) from error
    density = values.pop("density_per_deg2")
    moments = {"distance_mean_mpc": _positive(header, "DISTMEAN"), "distance_std_mpc": _positive(header, "DISTSTD")}
    return make_skymap(name, _event_mjd(header), start, stop, density, values, source=source, **moments)


# ------------------------------------------------------------------------------------------------ pixels
def _multi_order(table: Table) -> Intervals:
    orders, cells = healpix.from_uniq(table.integers("UNIQ"))
    return _sorted_intervals(orders, cells, {name: table.floats(name) for name in _wanted(table)}, table)


def _flat(table: Table) -> Intervals:
    wanted = _wanted(table)
    pixel = next((name for name in _PIXEL if name in table.fields), None)
    first = next(iter(wanted))
    n_pixels = table.rows * table.fields[first].repeat
    if any(table.rows * table.fields[name].repeat != n_pixels for name in wanted):
        raise ValueError("columns differ in length")
    if pixel is not None and str(table.header.get("INDXSCHM", "EXPLICIT")).strip().upper() == "EXPLICIT":
        return _explicit(table, pixel, wanted)
    order = _order_of(n_pixels)
    if "NSIDE" in table.header and table.header["NSIDE"] != 1 << order:
        raise ValueError(f"{n_pixels} pixels, but NSIDE is {table.header['NSIDE']}")
    # A flat map of 12 million pixels is mostly runs of equal ones: they are joined before anything else is made.
    begins = np.zeros(n_pixels, dtype=bool)
    begins[0] = True
    if _is_ring(table):
        place = healpix.ring_of(order, np.arange(n_pixels))
        columns = {}
        for name in wanted:
            columns[name] = table.floats(name)[place]
            mark_changes(begins, columns[name])
        at = np.flatnonzero(begins)
        values = {name: column[at] for name, column in columns.items()}
    else:
        for name in wanted:
            column = table.view(name)
            bits = column.view(f"u{column.itemsize}").reshape(-1)  # as they lie in the file: equal or not is all
            begins[1:] |= bits[1:] != bits[:-1]
        at = np.flatnonzero(begins)
        values = {name: _taken(table, name, at) for name in wanted}
    shift = 2 * (healpix.MAX_ORDER - order)
    return _described(at << shift, np.append(at[1:], n_pixels) << shift, values, table, healpix.cell_area_deg2(order))


def _explicit(table: Table, pixel: str, wanted: dict[str, str]) -> Intervals:
    nside = table.header.get("NSIDE")
    if isinstance(nside, bool) or not isinstance(nside, int) or not 0 < nside <= 1 << healpix.MAX_ORDER:
        raise ValueError(f"NSIDE is {nside!r}")
    order = _order_of(12 * nside * nside)
    cells = table.integers(pixel)
    if len(cells) and (cells.min() < 0 or cells.max() >= 12 * nside * nside):
        raise ValueError(f"a pixel number is none of NSIDE {nside}")
    if _is_ring(table):
        cells = healpix.nested_of(order, cells)
    orders = np.full(len(cells), order)
    return _sorted_intervals(orders, cells, {name: table.floats(name) for name in wanted}, table)


def _sorted_intervals(orders: NDArray, cells: NDArray, values: dict[str, NDArray], table: Table) -> Intervals:
    if any(len(column) != len(cells) for column in values.values()):
        raise ValueError("columns differ in length")
    shift = 2 * (healpix.MAX_ORDER - orders)
    start = cells << shift
    by = np.argsort(start, kind="stable")
    area = (healpix.cell_area_deg2(0) / np.exp2(2.0 * orders))[by]
    stop = ((cells + 1) << shift)[by]
    return _described(start[by], stop, {name: column[by] for name, column in values.items()}, table, area)


def _described(start: NDArray, stop: NDArray, values: dict[str, NDArray], table: Table, area_deg2: Any) -> Intervals:
    """Give the columns our names, and densities their unit; leave out what is marked as no pixel."""
    wanted = _wanted(table)
    name = next(iter(wanted))
    seen = ~(np.abs(values[name] / _UNSEEN - 1.0) < 1e-4)
    density = values[name] / _deg2_of(name, table.fields[name].unit, area_deg2)
    ours = {wanted[theirs]: column for theirs, column in values.items() if theirs != name}
    ours["density_per_deg2"] = density
    if seen.all():
        return start, stop, ours
    return start[seen], stop[seen], {key: column[seen] for key, column in ours.items()}


def _deg2_of(name: str, unit: str, area_deg2: Any) -> Any:
    """Return how many square degrees a column's number is of."""
    plain = re.sub(r"[\s*^()]", "", unit.lower())
    if plain in ("sr-1", "1/sr", "/sr"):
        return DEG2_PER_SR
    if plain in ("deg-2", "1/deg2", "/deg2"):
        return 1.0
    if plain in ("pix-1", "1/pix", "/pix", "pixel-1", "1/pixel", "/pixel"):
        return area_deg2
    return DEG2_PER_SR if name == "PROBDENSITY" else area_deg2


def _wanted(table: Table) -> dict[str, str]:
    """Return the columns to read, the probability first, by the names that we give them."""
    order = reversed(_PROBABILITY) if "UNIQ" in table.fields else _PROBABILITY
    name = next((item for item in order if item in table.fields), None)
    if name is None:
        columns = ", ".join(item[:20] for item in list(table.fields)[:10])
        raise ValueError(f"no column PROBDENSITY or PROB among: {columns}")
    return {name: "density_per_deg2", **(_DISTANCE if set(_DISTANCE) <= set(table.fields) else {})}


def _order_of(n_pixels: int) -> int:
    order = math.isqrt(n_pixels // 12).bit_length() - 1
    if n_pixels < 12 or 12 << (2 * order) != n_pixels:
        raise ValueError(f"{n_pixels} pixels are no HEALPix map")
    return order


def _is_ring(table: Table) -> bool:
    ordering = str(table.header.get("ORDERING", "RING")).strip().upper()
    if ordering not in ("NESTED", "NEST", "RING"):
        raise ValueError(f"ORDERING {ordering[:20]} is neither NESTED nor RING")
    return ordering == "RING"


def _taken(table: Table, name: str, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return some of a column's numbers."""
    if table.fields[name].is_unsigned:
        return table.floats(name)[at]
    repeat = table.fields[name].repeat
    return np.asarray(table.view(name)[at // repeat, at % repeat], dtype=np.float64)


# ------------------------------------------------------------------------------------------------ the header
def _positive(header: dict[str, Any], name: str) -> float | None:
    """Return a finite, positive number of the header, or None."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def _event_mjd(header: dict[str, Any]) -> float | None:
    """Return the event's time, TAI, from DATE-OBS (UTC) or else MJD-OBS (UTC)."""
    try:
        moment = datetime.fromisoformat(str(header.get("DATE-OBS", "")).strip()).replace(tzinfo=UTC)
        utc = moment.timestamp() / 86400.0 + _UNIX_EPOCH_MJD
    except ValueError:
        found = _positive(header, "MJD-OBS")
        if found is None:
            return None
        utc = found
    tai = float(utc_to_tai(utc))
    return tai if math.isfinite(tai) else None
