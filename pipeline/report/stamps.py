"""Stamps to pictures: FITS as shipped (gzip-packed or plain) to a grey PNG with a zscale stretch."""

from __future__ import annotations

import gzip
import io
import math
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.visualization import ZScaleInterval
from matplotlib import image as images
from numpy.typing import NDArray

_MOST_PIXELS = 4_000_000
_MOST_BYTES = 64_000_000


@dataclass(frozen=True)
class Stamp:
    """A stamp ready to show, or the reason why not.

    ``png`` is empty where there is none; ``north`` and ``east`` are unit vectors on the screen (x right, y down), None
    where the stamp says nothing about its orientation; ``side_arcsec`` is the width on the sky, if known.
    """

    png: bytes = b""
    fault: str | None = None
    north: tuple[float, float] | None = None
    east: tuple[float, float] | None = None
    side_arcsec: float | None = None


def stamp_of(value: Any) -> Stamp:
    """Return the picture of one stamp.

    Parameters
    ----------
    value : bytes, dict or None
        The survey's cutout as it stands in ``cutouts``: FITS bytes, or a record that holds them as ``stampData``.

    Notes
    -----
    A stamp with a world coordinate system is drawn as FITS has it, first row at the bottom, with its compass. One
    without (ZTF) is drawn first row at the top, as brokers show it: north up and east left for ZTF.
    """
    data = value.get("stampData") if isinstance(value, dict) else value
    if not data:
        return Stamp(fault="not shipped")
    try:
        pixels, header = _read(data)
    except (OSError, ValueError, TypeError, zlib.error, EOFError, IndexError, KeyError) as error:
        return Stamp(fault=f"cannot be read: {type(error).__name__}")
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return Stamp(fault="holds no finite pixel")
    low, high = ZScaleInterval().get_limits(finite)
    if not high > low:
        low, high = float(finite.min()) - 0.5, float(finite.max()) + 0.5
    shown = np.ma.masked_invalid(pixels)  # pixels without a value come out transparent
    matrix = _matrix(header)
    buffer = io.BytesIO()
    images.imsave(
        buffer,
        shown,
        vmin=low,
        vmax=high,
        cmap="gray",
        format="png",
        origin="upper" if matrix is None else "lower",
        metadata={"Software": None},  # type: ignore[dict-item]  # None leaves matplotlib's version out
    )
    return _with_compass(buffer.getvalue(), matrix, pixels.shape[1])


def _read(data: bytes) -> tuple[NDArray[np.float64], fits.Header]:
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as packed:
            data = packed.read(_MOST_BYTES)
    with warnings.catch_warnings():  # surveys' headers are not always to the letter of the standard
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(data), memmap=False) as units:
            unit = next(unit for unit in units if unit.header.get("NAXIS") == 2)
            if unit.header["NAXIS1"] * unit.header["NAXIS2"] > _MOST_PIXELS:
                raise ValueError("too many pixels for a stamp")
            return np.array(unit.data, dtype=np.float64), unit.header


def _matrix(header: fits.Header) -> NDArray[np.float64] | None:
    """Return degrees on the sky per pixel, shape (2, 2): rows east and north, columns x and y; None if not given."""
    if "CD1_1" in header:
        names, scale = "CD", (1.0, 1.0)
    elif "PC1_1" in header:
        names, scale = "PC", (float(header.get("CDELT1", 1.0)), float(header.get("CDELT2", 1.0)))
    else:
        return None
    rows = [[float(header.get(f"{names}{i}_{j}", 0.0)) * scale[i - 1] for j in (1, 2)] for i in (1, 2)]
    matrix = np.array(rows)
    return matrix if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0 else None


def _with_compass(png: bytes, matrix: NDArray[np.float64] | None, width: int) -> Stamp:
    if matrix is None:
        return Stamp(png)
    inverse = np.linalg.inv(matrix)
    east, north = (vector / np.hypot(*vector) for vector in (inverse[:, 0], inverse[:, 1]))
    scale = math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600.0
    # pixel y runs up, screen y runs down
    return Stamp(png, None, (float(north[0]), -float(north[1])), (float(east[0]), -float(east[1])), width * scale)
