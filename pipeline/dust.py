"""Maps of the dust of the Milky Way: E(B-V) as Schlegel, Finkbeiner & Davis have it (1998, ApJ 500, 525).

Two forms are read: their pair of images in Lambert's polar projection (``SFD_dust_4096_ngp.fits`` and
``SFD_dust_4096_sgp.fits``, one a hemisphere), interpolated bilinearly as they do it, and a HEALPix map in a FITS table,
of which the pixel itself is taken. Values are on their own scale; the rescaling of Schlafly & Finkbeiner (2011) is
inside A/E(B-V).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.luminosity import galactic

Float = NDArray[np.float64]

_ENDS = ("ngp", "sgp")
_MOST_ORDER = 12
_MOST_SIDE = 16_384
_NAMES = ("ebv", "e(b-v)", "temperature")
"""Columns that are taken before others, in any case."""
_MEND = "give the folder of SFD_dust_4096_ngp.fits and SFD_dust_4096_sgp.fits, one of the two, or a HEALPix FITS map"


class DustMap:
    """An opened dust map. It pickles by its path.

    Attributes
    ----------
    path : Path
        As given.
    digest : str
        sha256 over its files.
    """

    def __init__(self, path: Path, files: list[Path], ask: Callable[[Float, Float], Float]) -> None:
        self.path = path
        self._files = files
        self._ask = ask
        self._digest: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the path."""
        return open_dust_map, (str(self.path),)

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 over the files of the map."""
        if self._digest is None:
            sums = hashlib.sha256()
            for file in self._files:
                with file.open("rb") as opened:
                    sums.update(hashlib.file_digest(opened, "sha256").digest())
            self._digest = sums.hexdigest()
        return self._digest

    def ebv_mag(self, ra: ArrayLike, dec: ArrayLike) -> Float:
        """Return E(B-V) in magnitudes.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            ICRS degrees.

        Returns
        -------
        numpy.ndarray, shape (n,)
            NaN where there is no position, or the map has no value there.
        """
        ra, dec = np.atleast_1d(np.asarray(ra, np.float64)), np.atleast_1d(np.asarray(dec, np.float64))
        out = np.full(ra.shape, np.nan)
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
        if known.any():
            found = self._ask(ra[known], dec[known])
            out[known] = np.where(np.isfinite(found) & (found > -1.0), found, np.nan)  # -1.6e30 is HEALPix's "unseen"
        return out


def open_dust_map(path: str | Path) -> DustMap:
    """Open a dust map.

    Parameters
    ----------
    path : str or path
        Folder of the two polar images, one of these images (the other stands beside it), or a HEALPix map.

    Raises
    ------
    CatalogError
        It is absent, or not such a map.
    """
    place = Path(path)
    files = _pair(place)
    try:
        if files:
            hemispheres = [_Hemisphere(file) for file in files]
            if {item.sign for item in hemispheres} != {1, -1}:
                raise CatalogError("the two images are not one of each hemisphere", source=str(place), mend=_MEND)
            return DustMap(place.absolute(), files, _polar(hemispheres))
        if not place.is_file():
            raise CatalogError(f"there is no dust map at {place}", mend=_MEND)
        return DustMap(place.absolute(), [place], _healpix(place))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise CatalogError(f"dust map {place} cannot be read: {error}", mend=_MEND) from error


def _pair(place: Path) -> list[Path]:
    """Return the files of the two hemispheres, north first; none where it is no such pair."""
    if place.is_dir():
        found = [sorted(place.glob(f"*_{end}.fits")) for end in _ENDS]
        if any(len(files) != 1 for files in found):
            raise CatalogError(f"folder {place} holds no pair of polar dust images", mend=_MEND)
        return [files[0] for files in found]
    for end in _ENDS:
        if place.name.endswith(f"_{end}.fits"):
            pair = [place.with_name(place.name.removesuffix(f"_{end}.fits") + f"_{other}.fits") for other in _ENDS]
            missing = [file for file in pair if not file.is_file()]
            if missing:
                raise CatalogError(f"there is no dust map at {missing[0]}", mend=_MEND)
            return pair
    return []


# ------------------------------------------------------------------------------------------- polar images
class _Hemisphere:
    """One image, memory-mapped: pixels are read where they are asked for."""

    def __init__(self, file: Path) -> None:
        with fits.open(file, memmap=True) as units:
            header, self.data = units[0].header, units[0].data
        shape = getattr(self.data, "shape", ())
        if len(shape) != 2 or not all(2 <= side <= _MOST_SIDE for side in shape):
            raise ValueError(f"{file.name} holds no image of {_MOST_SIDE} pixels a side at most")
        self.sign = int(header["LAM_NSGP"])
        self.scale = float(header["LAM_SCAL"])
        self.centre_x, self.centre_y = float(header["CRPIX1"]) - 1.0, float(header["CRPIX2"]) - 1.0

    def __call__(self, longitude: Float, latitude: Float) -> Float:
        """Return the map's values at Galactic positions, radians, interpolated bilinearly (SFD 1998, appendix C)."""
        radius = self.scale * np.sqrt(np.maximum(1.0 - self.sign * np.sin(latitude), 0.0))
        x = self.centre_x + radius * np.cos(longitude)
        y = self.centre_y - self.sign * radius * np.sin(longitude)
        height, width = self.data.shape
        # at the equator the image ends half a pixel early: its last pixel goes on there
        left, low = (np.clip(np.floor(at), 0, most - 2).astype(np.int64) for at, most in ((x, width), (y, height)))
        u, v = np.clip(x - left, 0.0, 1.0), np.clip(y - low, 0.0, 1.0)
        corners = [np.asarray(self.data[low + j, left + i], dtype=np.float64) for j in (0, 1) for i in (0, 1)]
        return (1 - v) * ((1 - u) * corners[0] + u * corners[1]) + v * ((1 - u) * corners[2] + u * corners[3])


def _polar(hemispheres: list[_Hemisphere]) -> Callable[[Float, Float], Float]:
    def ask(ra: Float, dec: Float) -> Float:
        longitude, latitude = (np.radians(angle) for angle in galactic(ra, dec))
        out = np.full(ra.shape, np.nan)
        for hemisphere in hemispheres:
            here = latitude >= 0 if hemisphere.sign == 1 else latitude < 0
            out[here] = hemisphere(longitude[here], latitude[here])
        return out

    return ask


# --------------------------------------------------------------------------------------------- HEALPix map
def _healpix(file: Path) -> Callable[[Float, Float], Float]:
    with fits.open(file, memmap=True) as units:
        unit = next((item for item in units if item.header.get("PIXTYPE") == "HEALPIX"), None)
        if unit is None:
            raise ValueError("it holds no HEALPix map")
        header = unit.header
        order = _order(int(header["NSIDE"]))
        is_ring = {"RING": True, "NEST": False, "NESTED": False}[str(header["ORDERING"]).strip().upper()]
        is_galactic = {"G": True, "C": False}[str(header.get("COORDSYS", "G")).strip().upper()[:1]]
        names = [name for name in unit.columns.names if name.lower() in _NAMES] or unit.columns.names
        values = np.asarray(unit.data[names[0]]).reshape(-1)
    if len(values) != 12 * 4**order or values.dtype.kind not in "fiu":
        raise ValueError(f"column {names[0]} holds {len(values)} values of a map of {12 * 4**order}")

    def ask(ra: Float, dec: Float) -> Float:
        place = galactic(ra, dec) if is_galactic else (ra, dec)
        cells = healpix.ang2pix(order, *place)
        return np.asarray(values[healpix.ring_of(order, cells) if is_ring else cells], dtype=np.float64)

    return ask


def _order(nside: int) -> int:
    order = int(math.log2(nside)) if nside > 0 else -1
    if not 0 <= order <= _MOST_ORDER or 2**order != nside:
        raise ValueError(f"NSIDE {nside} is no power of two up to {2**_MOST_ORDER}")
    return order
