"""Sky maps by file or by event."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CatalogError
from pipeline.events import EventStore
from pipeline.healpix import MAX_ORDER, to_uniq
from pipeline.night import tai_to_utc
from pipeline.skymap import SkyMap, parse_skymap
from pipeline.skymap.notices import Event
from pipeline.store import Root


def read_skymap(path: str | Path, event: str | None = None, fallback: str | None = None) -> SkyMap:
    """Read a sky map from a FITS file, compressed or not.

    Parameters
    ----------
    path : path
        The file; see :func:`pipeline.skymap.parse_skymap` for the formats.
    event : str, optional
        Name of the event; default the one in the file.
    fallback : str, optional
        Name of the event where the file gives none.

    Raises
    ------
    CatalogError
        The file is absent or is no sky map.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CatalogError(f"sky map cannot be read: {error.strerror}", source=str(file)) from error
    return parse_skymap(data, event, str(file), fallback)


def find_skymap(
    file_or_event: str | Path, root: Root | str | os.PathLike[str] | None = None, event: str | None = None
) -> SkyMap:
    """Return the sky map that a file holds, or that of an event of the archive; see :func:`find_event`."""
    return find_event(file_or_event, root, event)[0]


def find_event(
    file_or_event: str | Path, root: Root | str | os.PathLike[str] | None = None, event: str | None = None
) -> tuple[SkyMap, Event | None]:
    """Return a sky map and, where it came from the archive's events, the version that it is of.

    Parameters
    ----------
    file_or_event : str or path
        A FITS file, ``EVENT=FILE``, or the name of an event that the archive knows. A file comes first; where it
        names no event, the file's own name stands for it.
    root : Root or path, optional
        The archive that knows events; without one, files only.
    event : str, optional
        Name to give to the event of a file.

    Raises
    ------
    CatalogError
        It is neither; or the event was retracted, is a test, or says nowhere where it was.
    """
    text = os.fspath(file_or_event)
    named, is_pair, path = text.partition("=")
    if Path(text).is_file():
        return read_skymap(text, event, fallback=Path(text).name.split(".")[0]), None
    if is_pair and named and path:
        return read_skymap(path, event or named), None
    store = None if root is None else EventStore(root)
    if store is None or not store.versions(text):
        known = "" if store is None else f"; events known: {', '.join(store.names()[:10]) or 'none'}"
        raise CatalogError(
            f"{text} is neither a file nor an event of the archive{known}",
            mend="add its notice: alertmill events add; or give EVENT=FILE",
        )
    stored = store.located(text)
    return store.skymap_of(stored), stored.event


def skymap_fits(skymap: SkyMap) -> bytes:
    """Return a sky map as multi-order FITS: ``UNIQ``, ``PROBDENSITY`` (sr-1) and, in a map with distance, its columns.

    Equal maps give equal bytes; :func:`pipeline.skymap.parse_skymap` gives the map again, its time to a microsecond.
    """
    from astropy.io import fits

    row, order, cell = _cells(skymap.start, skymap.stop)
    density = skymap.density_per_deg2[row] * (180.0 / math.pi) ** 2
    columns = [
        fits.Column(name="UNIQ", format="K", array=to_uniq(order, cell)),
        fits.Column(name="PROBDENSITY", format="D", unit="sr-1", array=density),
    ]
    distances = (skymap.distance_mu_mpc, skymap.distance_sigma_mpc, skymap.distance_norm)
    for name, unit, values in zip(("DISTMU", "DISTSIGMA", "DISTNORM"), ("Mpc", "Mpc", "Mpc-2"), distances, strict=True):
        if values is not None:
            columns.append(fits.Column(name=name, format="D", unit=unit, array=values[row]))
    table = fits.BinTableHDU.from_columns(columns)
    facts = {
        "PIXTYPE": "HEALPIX",
        "ORDERING": "NUNIQ",
        "COORDSYS": "C",
        "MOCORDER": int(order.max(initial=0)),
        "INDXSCHM": "EXPLICIT",
        "OBJECT": skymap.event,
        "MJD-OBS": None if skymap.event_mjd is None else float(tai_to_utc(skymap.event_mjd)),
        "DISTMEAN": skymap.distance_mean_mpc,
        "DISTSTD": skymap.distance_std_mpc,
        "CREATOR": "alertmill",
    }
    table.header.update({name: value for name, value in facts.items() if value is not None})
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(sink)
    return sink.getvalue()


def _cells(start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray]:
    """Return the largest cells that make up intervals of order-29 cells: number of the interval, order, cell."""
    pieces = (np.arange(len(start)), start, stop)
    rows, orders, cells = [], [], []
    for order in range(MAX_ORDER + 1):
        shift = 2 * (MAX_ORDER - order)
        row, low, high = pieces
        first, last = -(-low >> shift), high >> shift
        counts = np.maximum(last - first, 0)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.append(np.repeat(row, counts))
        orders.append(np.full(len(within), order))
        cells.append(np.repeat(first, counts) + within)
        taken = counts > 0
        left = np.concatenate([low[~taken], low[taken], last[taken] << shift])
        right = np.concatenate([high[~taken], first[taken] << shift, high[taken]])
        row = np.concatenate([row[~taken], row[taken], row[taken]])
        pieces = tuple(item[left < right] for item in (row, left, right))  # type: ignore[assignment]
    row, order_of, cell = (np.concatenate(items) for items in (rows, orders, cells))
    by = np.argsort(cell << (2 * (MAX_ORDER - order_of)), kind="stable")
    return row[by], order_of[by], cell[by]
