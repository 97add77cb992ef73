"""Catalogs of galaxies in memory, and hosts found by looking at every galaxy: what the host stage is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord

from pipeline import cosmology, healpix, xmatch
from pipeline.xmatch import CatalogDeclaration, parse_declaration

COLUMNS = {
    "name": "string",
    "alias": "string",
    "lum_dist_mpc": "float64",
    "lum_dist_err_mpc": "float64",
    "ang_dist_mpc": "float64",
    "z": "float64",
    "stellar_mass_msun": "float64",
}
HOST = {
    **{"name": "name", "alias": "alias", "distance_mpc": "lum_dist_mpc", "distance_err_mpc": "lum_dist_err_mpc"},
    **{"angular_distance_mpc": "ang_dist_mpc", "redshift": "z", "stellar_mass_msun": "stellar_mass_msun"},
}


def declare(name: str, *, radius_kpc: float = 30.0, given: Sequence[str] = tuple(COLUMNS)) -> CatalogDeclaration:
    """Return the declaration of a catalog of galaxies with some of the columns."""
    host = {key: column for key, column in HOST.items() if column in given}
    return parse_declaration(
        {
            **dict.fromkeys(("doc", "source", "licence"), "test"),
            **{"name": name, "ra": "ra", "dec": "dec", "radius_arcsec": 60.0},
            "column": [{"name": item, "type": COLUMNS[item], "doc": item} for item in given],
            "host": {"radius_kpc": radius_kpc, **host},
        },
        f"{name}.toml",
    )


class Galaxies:
    """A catalog that was built, without files."""

    def __init__(self, declaration: CatalogDeclaration, table: pa.Table, covered: np.ndarray = healpix.ALL_SKY) -> None:
        self.name, self.digest, self.declaration = declaration.name, "0" * 64, declaration
        self.covered = covered
        self.index, rows = xmatch.build_index(table["ra"].to_numpy(), table["dec"].to_numpy())
        self.payload = table.take(pa.array(rows))
        self.distances = cosmology.galaxy_distances(*(self._numbers(name) for name in list(COLUMNS)[2:6]))
        assert declaration.host is not None
        self.reach = cosmology.reach_arcsec(declaration.host.radius_kpc, self.distances.angular_mpc)
        self._classes = xmatch.build_classes(self.index, self.reach)

    def _numbers(self, name: str) -> np.ndarray:
        if name not in self.payload.column_names:
            return np.full(self.payload.num_rows, np.nan)
        return self.payload[name].cast(pa.float64()).to_numpy()

    def classes(self, kind: str) -> xmatch.SourceClasses | None:
        return self._classes if kind == "host" else None

    def take(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        return self.payload.select(list(names)).take(pa.array(rows))


def alerts_at(ra: np.ndarray, dec: np.ndarray, is_solar_system: np.ndarray | None = None) -> pa.Table:
    moving = np.zeros(len(ra), dtype=bool) if is_solar_system is None else is_solar_system
    return pa.table(
        {"ra": ra, "dec": dec, "healpix_29": healpix.ang2pix(29, ra, dec), "is_solar_system": pa.array(moving)}
    )


def brute_force(alerts: pa.Table, catalogs: Sequence[Galaxies]) -> list[tuple[str, int, float, int] | None]:
    """Return catalog, row, kpc and number of candidates of each alert, by trying every galaxy of every catalog."""
    out: list[tuple[str, int, float, int] | None] = []
    for ra, dec in zip(alerts["ra"].to_pylist(), alerts["dec"].to_pylist(), strict=True):
        found = []
        for catalog in catalogs:
            place = SkyCoord(ra, dec, unit="deg")
            arcsec = place.separation(SkyCoord(catalog.index.ra, catalog.index.dec, unit="deg")).arcsec
            for row in np.flatnonzero(arcsec <= catalog.reach).tolist():
                kpc = np.radians(arcsec[row] / 3600) * catalog.distances.angular_mpc[row] * 1e3
                found.append((float(kpc), float(arcsec[row]), catalog.name, row))
        out.append((min(found)[2], min(found)[3], min(found)[0], len(found)) if found else None)
    return out
