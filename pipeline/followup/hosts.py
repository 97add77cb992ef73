"""Host galaxies of the alerts that a search found, and what follows from their distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import catalogs as built
from pipeline.catalogs.opened import META
from pipeline.errors import InputError
from pipeline.followup.columns import Pairs
from pipeline.luminosity import Passband
from pipeline.skymap import SkyMap, volume_levels
from pipeline.stages import host, luminosity
from pipeline.stages.skymap import distance_errors_mpc

if TYPE_CHECKING:
    from pipeline.catalogs import Catalog

_DISTANCE, _ERROR = "host_distance_mpc", "host_distance_err_mpc"


def open_catalogs(folder: Path, names: Sequence[str] = ()) -> list[Catalog]:
    """Open the built catalogs that declare host galaxies.

    Parameters
    ----------
    folder : path
        Where built catalogs stand, each in a folder of its name.
    names : sequence of str
        Only these, each a name or NAME=FOLDER; every one there by default.

    Raises
    ------
    CatalogError
        One is absent or damaged.
    InputError
        One that is named declares no hosts.
    """
    if not names:
        present = sorted(file.parent for file in folder.glob(f"*/{META}") if not file.parent.name.startswith("."))
        opened = [built.open_catalog(path) for path in present]
        return [item for item in opened if item.declaration.host is not None]
    chosen = []
    for given in names:
        name, _, place = given.partition("=")
        catalog = built.open_catalog(Path(place) if place else folder / name)
        if catalog.declaration.host is None:
            raise InputError(f"catalog {name} declares no host galaxies", mend="add a [host] table to its declaration")
        chosen.append(catalog)
    return chosen


def hosts_of(alerts: pa.Table, catalogs: Sequence[Catalog]) -> pa.Table:
    """Return the host columns of some alerts: from the catalogs, else those that the release has.

    Raises
    ------
    InputError
        Neither is there.
    """
    names = [item.name for item in host.produces()]
    if catalogs:
        return host.match(alerts, list(catalogs))
    if set(names) <= set(alerts.column_names):
        return alerts.select(names)
    raise InputError(
        "no built catalog declares host galaxies, and the release has no host columns",
        mend="build one with `alertmill catalogs build`, or give --catalog NAME=FOLDER",
    )


def luminosities_of(
    alerts: pa.Table, hosts: pa.Table, passbands: Mapping[str, Passband], dust: luminosity.Dust | None
) -> pa.Table:
    """Return the luminosity columns of some alerts at their hosts' distances."""
    beside = {name: alerts.column(name) for name in luminosity.REQUIRES if not name.startswith("host_")}
    beside |= {name: hosts.column(name) for name in luminosity.REQUIRES if name.startswith("host_")}
    return luminosity.match(pa.table(beside), passbands, dust)


def pair_volume_levels(maps: Sequence[SkyMap], pairs: Pairs, alerts: pa.Table, hosts: pa.Table) -> NDArray[np.float64]:
    """Return the credible level in space of each pair's host, shape (n,).

    NaN where the map has no distance, or the alert no host of known distance. Distances come from ``hosts``, else from
    the release's own columns; an error that is not known is that of :func:`pipeline.stages.skymap.distance_errors_mpc`.
    """
    level = np.full(len(pairs), np.nan)
    source = hosts if _DISTANCE in hosts.column_names else alerts
    if _DISTANCE not in source.column_names:
        return level
    distance = source.column(_DISTANCE).to_numpy()
    error = source.column(_ERROR).to_numpy() if _ERROR in source.column_names else np.full(len(distance), np.nan)
    error = distance_errors_mpc(distance, error)
    cells = alerts.column("healpix_29").to_numpy()
    for number, skymap in enumerate(maps):
        here = np.flatnonzero((pairs.skymap == number) & np.isfinite(distance[pairs.row]))
        if len(here) and skymap.has_distance:
            rows = pairs.row[here]
            level[here] = volume_levels(skymap, cells[rows], distance[rows], error[rows])
    return level
