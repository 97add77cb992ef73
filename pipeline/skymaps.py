"""Sky-map files."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CatalogError
from pipeline.skymap import SkyMap, parse_skymap


def read_skymap(path: str | Path, event: str | None = None) -> SkyMap:
    """Read a sky map from a FITS file, compressed or not.

    Parameters
    ----------
    path : path
        The file; see :func:`pipeline.skymap.parse_skymap` for the formats.
    event : str, optional
        Name of the event; default the one in the file.

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
    return parse_skymap(data, event, str(file))
