"""Time scales and calendar dates, vectorised and without the network.

Times in alertmill are TAI days (MJD). The UTC offset comes from the leap-second table that ships with ERFA (the one
astropy uses); it is never refreshed from the network, so a run means the same on every machine with the same lock file.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import erfa
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

SECONDS_PER_DAY = 86400.0
MJD_ZERO_JD = 2400000.5
_MJD_UNIX_EPOCH = 40587
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@cache
def _leap_seconds() -> tuple[Float, Float]:
    """Return (UTC MJD from which it holds, TAI - UTC in seconds), from 1972 on."""
    table = erfa.leap_seconds.get()
    table = table[table["year"] >= 1972]
    months = (table["year"].astype(np.int64) - 1970) * 12 + table["month"] - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    start = (days + _MJD_UNIX_EPOCH).astype(np.float64)
    offset = table["tai_utc"].astype(np.float64)
    start.setflags(write=False)
    offset.setflags(write=False)
    return start, offset


def mjd_from_jd(jd: ArrayLike) -> Float:
    """Return the MJD of a Julian date, in the same scale; shape kept, days."""
    return np.asarray(jd, dtype=np.float64) - MJD_ZERO_JD


def utc_to_tai(mjd_utc: ArrayLike) -> Float:
    """Convert UTC to TAI.

    Parameters
    ----------
    mjd_utc : array_like, (n,)
        UTC, days. A day that ends with a leap second is 86,401 s long and its fraction stretched, as in ERFA.

    Returns
    -------
    numpy.ndarray, (n,)
        TAI, days; NaN before 1972 and where the input is not finite.
    """
    utc = np.asarray(mjd_utc, dtype=np.float64)
    return _utc_to_tai(utc.ravel(), *_leap_seconds()).reshape(utc.shape)


@njit(**_JIT)
def _utc_to_tai(mjd_utc: Float, start: Float, offset: Float) -> Float:
    out = np.full(len(mjd_utc), np.nan)
    for i in range(len(mjd_utc)):
        day = np.floor(mjd_utc[i])
        place = len(start) - 1
        while place >= 0 and start[place] > day:
            place -= 1
        if place < 0 or not np.isfinite(day):
            continue
        elapsed = mjd_utc[i] - day
        if place + 1 < len(start) and start[place + 1] <= day + 1.0:
            elapsed *= 1.0 + (offset[place + 1] - offset[place]) / SECONDS_PER_DAY
        out[i] = day + elapsed + offset[place] / SECONDS_PER_DAY
    return out


def tai_to_utc(mjd_tai: ArrayLike) -> Float:
    """Convert TAI to UTC: the inverse of :func:`utc_to_tai`; shape kept, days."""
    tai = np.asarray(mjd_tai, dtype=np.float64)
    start, offset = _leap_seconds()
    with np.errstate(invalid="ignore"):
        place = np.searchsorted(start + offset / SECONDS_PER_DAY, tai, side="right") - 1
        before = offset[np.maximum(place, 0)]
        utc = tai - before / SECONDS_PER_DAY
        # The day before the next leap second is longer than 86,400 s: squeeze its fraction back.
        ends = np.append(start[1:], np.inf)[np.maximum(place, 0)]
        after = np.append(offset[1:], offset[-1])[np.maximum(place, 0)]
        inside = utc - (ends - 1.0)
        squeezed = (ends - 1.0) + inside / (1.0 + (after - before) / SECONDS_PER_DAY)
        utc = np.where(inside > 0.0, squeezed, utc)
    return np.where(np.isfinite(tai) & (place >= 0), utc, np.nan)


def date_number(mjd: ArrayLike) -> NDArray[np.int32]:
    """Return the calendar date of an MJD as the number YYYYMMDD.

    Parameters
    ----------
    mjd : array_like, (n,)
        Days, finite; the date is in the scale of ``mjd``.

    Returns
    -------
    numpy.ndarray of int32, (n,)
    """
    days = np.floor(np.asarray(mjd, dtype=np.float64)).astype(np.int64) - _MJD_UNIX_EPOCH
    date = days.astype("datetime64[D]")
    month = date.astype("datetime64[M]").astype(np.int64)
    day = (date - date.astype("datetime64[M]")).astype(np.int64) + 1
    return ((month // 12 + 1970) * 10000 + (month % 12 + 1) * 100 + day).astype(np.int32)


def mjd_of_date(date: ArrayLike) -> NDArray[np.int64]:
    """Return the MJD at 0 h of dates given as YYYYMMDD: the inverse of :func:`date_number`."""
    number = np.asarray(date, dtype=np.int64)
    months = (number // 10000 - 1970) * 12 + number // 100 % 100 - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return first + number % 100 - 1 + _MJD_UNIX_EPOCH
