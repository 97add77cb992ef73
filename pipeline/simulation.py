"""Writing of a simulated night: the dump as the survey ships it, the truth, the catalogs and the sky map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.time import Time

from pipeline.errors import InputError
from pipeline.paths import parse_night
from pipeline.simulate import lsst, truth, ztf
from pipeline.simulate.encode import Encoder
from pipeline.simulate.measure import measure
from pipeline.simulate.night import Night, plan_night
from pipeline.simulate.packets import TAR_END, container_header, containers, tar_members
from pipeline.simulate.populations import CODES
from pipeline.simulate.skymap import SkyMap, draw_map
from pipeline.surveys.superset import known_schemas

VERSIONS = {"ztf": ("4.02", "4.01", "3.3"), "lsst": ("10.0", "11.0")}
"""Schema versions that can be written; the first is the default."""

BATCH = 512
"""Alerts encoded at a time; the output does not depend on it."""

_WRITERS = {"ztf": ztf, "lsst": lsst}
_DUMPS = {"ztf": "ztf_public_{night}.tar", "lsst": "lsst_{night}.tar"}


@dataclass(frozen=True)
class Simulated:
    """What was written: the dump, its number of alerts, and how many of each class."""

    dump: Path
    truth: Path
    skymap: Path
    event: str
    alerts: int
    bytes: int
    classes: dict[str, int]


def simulate(
    night: int,
    survey: str,
    alerts: int,
    seed: int,
    out: Path,
    *,
    schema_version: str | None = None,
    cutouts: bool = True,
    weights: dict[str, float] | None = None,
    batch: int = BATCH,
) -> Simulated:
    """Write a simulated night into the folder ``out``; the same arguments write the same bytes.

    Parameters
    ----------
    night : int
        YYYYMMDD (UTC date for ZTF, day of observation for Rubin).
    survey : str
        ``ztf`` or ``lsst``.
    alerts : int
        Exact number of alerts.
    seed : int
        Of every random number.
    out : pathlib.Path
        Folder, made if absent.
    schema_version : str, optional
        One of :data:`VERSIONS`.
    cutouts : bool
        Without them packets are made several times faster (training).
    weights : dict of str to float, optional
        Shares of the classes instead of the realistic ones.
    batch : int
        Alerts encoded at a time.

    Raises
    ------
    InputError
        An argument cannot be used, or the folder cannot be written.
    """
    parse_night(night)
    plan = plan_night(survey, night, alerts, seed, weights)
    version = schema_version or VERSIONS[survey][0]
    if version not in VERSIONS[survey]:
        raise InputError(
            f"{survey} packets of schema {version} cannot be simulated", mend="choose " + ", ".join(VERSIONS[survey])
        )
    dump = out / _DUMPS[survey].format(night=night)
    try:
        for folder in (out, out / "catalogs", out / "skymaps"):
            folder.mkdir(parents=True, exist_ok=True)
        table, size = _write_dump(plan, survey, version, cutouts, batch, dump)
        pq.write_table(table, out / "truth.parquet")
        pq.write_table(truth.galaxies(plan), out / "catalogs" / "sim_galaxies.parquet")
        pq.write_table(truth.variables(plan), out / "catalogs" / "sim_variables.parquet")
        pq.write_table(truth.active_galaxies(plan), out / "catalogs" / "sim_agn.parquet")
        skymap = out / "skymaps" / f"{plan.event.name}.fits"
        _write_map(plan, skymap)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    counts = table.column("class").value_counts().to_pylist()
    classes = {item["values"]: item["counts"] for item in sorted(counts, key=lambda item: CODES[item["values"]])}
    return Simulated(dump, out / "truth.parquet", skymap, plan.event.name, alerts, size, classes)


def _write_dump(plan: Night, survey: str, version: str, cutouts: bool, batch: int, dump: Path) -> tuple[pa.Table, int]:
    """Write the tar under a temporary name, then in place; returns the truth and the size."""
    schema = known_schemas(survey)[version]
    encoder, header, writer = Encoder(schema), container_header(schema), _WRITERS[survey]
    mtime = int((plan.visits.jd[plan.visits.tonight[-1]] - 2440587.5) * 86400.0)
    tables = []
    partial = dump.with_name(dump.name + ".partial")
    with partial.open("wb") as file:
        for start in range(0, plan.alert_visit.size, batch):
            rows = np.arange(start, min(start + batch, plan.alert_visit.size))
            measured = measure(plan, rows)
            alert_id, object_id = writer.names(plan, measured)
            bodies, offsets = writer.encode_alerts(plan, measured, encoder, version, cutouts)
            file.write(tar_members(alert_id, containers(header, bodies, offsets, alert_id, plan.draws), mtime))
            tables.append(truth.truth_of(plan, measured, alert_id, object_id))
        file.write(TAR_END)
    partial.replace(dump)
    return pa.concat_tables(tables), dump.stat().st_size


def _write_map(plan: Night, path: Path) -> None:
    """Write the merger's sky map in the multi-order form of the LIGO-Virgo-KAGRA maps."""
    chosen = np.flatnonzero((plan.objects.code == CODES["kilonova"]) & (plan.objects.link == 0))[0]
    place = float(plan.objects.ra[chosen]), float(plan.objects.dec[chosen])
    skymap = draw_map(plan.event, *place, plan.draws)
    map_hdu(plan, skymap).writeto(path, overwrite=True)


def map_hdu(plan: Night, skymap: SkyMap) -> fits.HDUList:
    """Return the sky map as FITS."""
    columns = [
        fits.Column(name="UNIQ", format="K", array=skymap.uniq),
        fits.Column(name="PROBDENSITY", format="D", unit="sr-1", array=skymap.density),
        fits.Column(name="DISTMU", format="D", unit="Mpc", array=skymap.mu),
        fits.Column(name="DISTSIGMA", format="D", unit="Mpc", array=skymap.sigma),
        fits.Column(name="DISTNORM", format="D", unit="Mpc-2", array=skymap.norm),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    when = Time(plan.event.mjd_tai, format="mjd", scale="tai").utc
    for key, value, note in (
        ("PIXTYPE", "HEALPIX", "HEALPIX pixelisation"),
        ("ORDERING", "NUNIQ", "Pixel ordering scheme: RING, NESTED, or NUNIQ"),
        ("COORDSYS", "C", "Ecliptic, Galactic or Celestial (equatorial)"),
        ("MOCORDER", skymap.max_order, "MOC resolution (best order)"),
        ("INDXSCHM", "EXPLICIT", "Indexing: IMPLICIT or EXPLICIT"),
        ("OBJECT", plan.event.name, "Unique identifier for this event"),
        ("INSTRUME", "H1,L1,V1", "Instruments that triggered this event"),
        ("DATE-OBS", when.isot, "UTC date of the observation"),
        ("MJD-OBS", when.mjd, "modified Julian date of the observation"),
        ("CREATOR", "alertmill simulate", "Program that created this file"),
        ("DISTMEAN", skymap.mean_mpc, "Posterior mean distance (Mpc)"),
        ("DISTSTD", skymap.std_mpc, "Posterior standard deviation of distance (Mpc)"),
    ):
        table.header[key] = (value, note)
    return fits.HDUList([fits.PrimaryHDU(), table])
