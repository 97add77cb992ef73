"""Sky maps from FITS bytes: multi-order and flat HEALPix, with or without distance."""

from __future__ import annotations

import gzip
import math
import zlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.night import utc_to_tai
from pipeline.skymap.maps import SkyMap, event_name, make_skymap, mark_changes

_DEG2_PER_SR = (180.0 / math.pi) ** 2
_DISTANCE = {"DISTMU": "distance_mu_mpc", "DISTSIGMA": "distance_sigma_mpc", "DISTNORM": "distance_norm"}
_PROBABILITY = ("PROB", "PROBABILITY")
_UNIX_EPOCH_MJD = 40587.0


def parse_skymap(data: bytes, event: str | None = None, source: str = "sky map") -> SkyMap:
    """Read a HEALPix map from FITS bytes.

    Parameters
    ----------
    data : bytes
        FITS, gzip-compressed or not: multi-order (UNIQ, PROBDENSITY per steradian) or flat (PROB per pixel; nested or
        ring), each with DISTMU, DISTSIGMA, DISTNORM or without.
    event : str, optional
        Name of the event; default the header's OBJECT.
    source : str
        Named in errors.

    Raises
    ------
    CatalogError
        The bytes are no such map, its probability does not sum to 1 within 1 %, or the event has no name.
    """
    header, columns = _fits_table(data, source)
    name = event_name(event if event is not None else str(header.get("OBJECT") or ""))
    if not name:
        raise CatalogError("sky map names no event", source=source, mend="name it: EVENT=FILE")
    if str(header.get("COORDSYS") or "C").strip()[:1] not in ("C", "E") and "COORDSYS" in header:
        raise CatalogError(f"sky map is in coordinates {header['COORDSYS']}, not equatorial", source=source)
    try:
        start, stop, values = (_multi_order if "UNIQ" in columns else _flat)(header, columns)
    except (KeyError, ValueError, IndexError) as error:
        raise CatalogError(f"sky map is not understood: {error}", source=source) from error
    density = values.pop("density_per_deg2")
    moments = {"distance_mean_mpc": _number(header, "DISTMEAN"), "distance_std_mpc": _number(header, "DISTSTD")}
    return make_skymap(name, _event_mjd(header), start, stop, density, values, source=source, **moments)


def _fits_table(data: bytes, source: str) -> tuple[Any, dict[str, NDArray]]:
    from astropy.io import fits

    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with fits.HDUList.fromstring(plain, uint=True) as opened:  # in place: a flat map takes 400 MB
            table = next((item for item in opened if isinstance(item, fits.BinTableHDU)), None)
            if table is None:
                raise CatalogError("sky map has no table", source=source)
            return table.header, {name: np.asarray(table.data[name]) for name in table.columns.names}
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        # AttributeError is what astropy raises from a buffer in which it finds no header at all.
        raise CatalogError(f"sky map cannot be read as FITS: {error}", source=source) from error


def _multi_order(header: Any, columns: dict[str, NDArray]) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    orders, cells = healpix.from_uniq(columns["UNIQ"])
    shift = 2 * (healpix.MAX_ORDER - orders)
    start = cells << shift
    by = np.argsort(start, kind="stable")
    values = {name: _numbers(columns[theirs])[by] for theirs, name in _distances(columns).items()}
    values["density_per_deg2"] = _numbers(columns["PROBDENSITY"])[by] / _DEG2_PER_SR
    return start[by], ((cells + 1) << shift)[by], values


def _flat(header: Any, columns: dict[str, NDArray]) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    name = next((item for item in _PROBABILITY if item in columns), None)
    if name is None:
        raise KeyError(f"no column UNIQ or PROB among {', '.join(columns)}")
    n_pixels = columns[name].size
    order = math.isqrt(n_pixels // 12).bit_length() - 1
    if not n_pixels or 12 << (2 * order) != n_pixels:
        raise ValueError(f"{n_pixels} pixels are no HEALPix map")
    ordering = str(header.get("ORDERING", "RING")).strip().upper()
    if ordering not in ("NESTED", "NEST", "RING"):
        raise ValueError(f"ORDERING {ordering} is neither NESTED nor RING")
    place = healpix.ring_of(order, np.arange(n_pixels)) if ordering == "RING" else slice(None)
    # A flat map of 12 million pixels is mostly runs of equal ones: they are joined before anything else is made.
    wanted = {name: "density_per_deg2", **_distances(columns)}
    begins = np.zeros(n_pixels, dtype=bool)
    begins[0] = True
    for theirs in wanted:
        mark_changes(begins, _numbers(columns[theirs])[place])
    first = np.flatnonzero(begins)
    values = {ours: _numbers(columns[theirs])[place][first] for theirs, ours in wanted.items()}
    values["density_per_deg2"] /= healpix.cell_area_deg2(order)
    shift = 2 * (healpix.MAX_ORDER - order)
    return first << shift, np.append(first[1:], n_pixels) << shift, values


def _distances(columns: dict[str, NDArray]) -> dict[str, str]:
    return _DISTANCE if set(_DISTANCE) <= set(columns) else {}


def _numbers(column: NDArray) -> NDArray[np.float64]:
    return np.asarray(column, dtype=np.float64).reshape(-1)  # rows may hold 1024 pixels each


def _number(header: Any, name: str) -> float | None:
    """Return a finite, positive number of the header, or None."""
    try:
        value = float(header[name])
    except (KeyError, ValueError, TypeError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _event_mjd(header: Any) -> float | None:
    """Return the event's time, TAI, from DATE-OBS (UTC) or else MJD-OBS (UTC)."""
    try:
        moment = datetime.fromisoformat(str(header["DATE-OBS"]).strip()).replace(tzinfo=UTC)
        utc = moment.timestamp() / 86400.0 + _UNIX_EPOCH_MJD
    except (KeyError, ValueError):
        try:
            utc = float(header["MJD-OBS"])
        except (KeyError, ValueError, TypeError):
            return None
    tai = float(utc_to_tai(utc))
    return tai if math.isfinite(tai) else None
