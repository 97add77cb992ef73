"""A table of the user's against the archive: every alert within the radius of every row, none lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import healpix
from pipeline.archive import Archive
from pipeline.archive.pruning import LEDGER_ORDER
from pipeline.errors import InputError
from pipeline.schema import column
from pipeline.streams import reading
from pipeline.streams.reading import Progress, Silent
from pipeline.streams.targets import Targets
from pipeline.streams.writing import written_rows
from pipeline.xmatch import (
    Pairs,
    Positions,
    build_classes,
    build_index,
    build_motion_classes,
    julian_epoch,
    motion_reach_arcsec,
    within_at,
    within_moving,
    within_reach,
)

_COLUMNS = (
    column("survey", pa.string(), nullable=False, doc="survey of the alert"),
    column("night", pa.int32(), nullable=False, doc="observing night of the alert, YYYYMMDD"),
    column("alert_id", pa.int64(), nullable=False, doc="alert"),
    column("object_key", pa.string(), nullable=False, doc="its object"),
    column("ra", pa.float64(), unit="deg", nullable=False, doc="ICRS right ascension of the alert"),
    column("dec", pa.float64(), unit="deg", nullable=False, doc="ICRS declination of the alert"),
    column("mjd", pa.float64(), unit="d", nullable=False, doc="TAI at mid-exposure"),
    column("band", pa.string(), nullable=False, doc="band"),
    column("diff_mag", pa.float64(), unit="mag", doc="AB magnitude of the absolute difference flux"),
    column("separation_arcsec", pa.float64(), unit="arcsec", nullable=False, doc="separation of alert and row"),
    column("n_neighbours", pa.int32(), nullable=False, doc="rows of the table within their radius of this alert"),
)

Find = Callable[[Positions, pa.Table], Pairs]


@dataclass(frozen=True)
class TableMatched:
    """What a match of a table with the archive found.

    Attributes
    ----------
    rows, rows_without_position, rows_matched : int
        Rows of the table, those without a position, and those with at least one alert.
    alerts_read, alerts_matched, pairs : int
        Alerts that were looked at, those within the radius of a row, and pairs written.
    parts_read, parts : int
        Parts that the table touches, of how many in the nights.
    """

    rows: int
    rows_without_position: int
    rows_matched: int
    alerts_read: int
    alerts_matched: int
    pairs: int
    parts_read: int
    parts: int


def schema_of(targets: Targets) -> pa.Schema:
    """Return the columns of the result: row number, the table's own id, and the alert."""
    own = [column("row", pa.int64(), nullable=False, doc="row of the table, from 0")]
    if targets.id is not None:
        own.append(column("id", targets.id.type, doc="the table's own identifier"))
    return pa.schema([*own, *_COLUMNS])


def match_table(
    archive: Archive,
    surveys: Sequence[str],
    targets: Targets,
    start: int,
    stop: int,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> TableMatched:
    """Write every alert of some nights within the radius of every row of a table.

    Only parts are read whose ledger cells the table touches. Pairs come in archive order (survey, night, part, row),
    those of one alert by separation.

    Parameters
    ----------
    archive : Archive
        The archive.
    surveys : sequence of str
        Which surveys of it.
    targets : Targets
        The table.
    start, stop : int
        First and last night, YYYYMMDD.
    out : path
        File to write: Parquet, CSV, FITS or VOTable by its suffix.

    Raises
    ------
    InputError
        None of the nights is in the archive, or the file cannot be written.
    """
    told = progress or Silent()
    chosen = {}
    for survey in surveys:
        if len(surveys) == 1 or any(start <= night <= stop for night in archive.nights(survey)):
            chosen[survey] = reading.select(archive, survey, start, stop)
    if not chosen:
        raise InputError(f"the archive has no night from {start} to {stop}")
    sky = _sky(targets, start, stop)
    touched = {survey: reading.touching(item.parts, sky) for survey, item in chosen.items()}
    schema, find = schema_of(targets), _finder(targets)
    is_matched = np.zeros(len(targets), dtype=bool)
    alerts_read = alerts_matched = 0
    told.stage("match", sum(map(len, touched.values())))
    with written_rows(out, schema) as rows:
        for survey, parts in touched.items():
            for part in parts:
                alerts = reading.read(chosen[survey], (part,))
                pairs = find(reading.positions_of(alerts), alerts)
                is_matched[pairs.row] = True
                alerts_read += len(alerts)
                alerts_matched += len(np.unique(pairs.alert))
                if len(pairs):
                    rows.add(_table(schema, targets, survey, alerts, pairs))
                told.advance("match")
        written = rows.rows
    return TableMatched(
        rows=len(targets),
        rows_without_position=int((healpix.ang2pix(0, targets.ra, targets.dec) < 0).sum()),
        rows_matched=int(is_matched.sum()),
        alerts_read=alerts_read,
        alerts_matched=alerts_matched,
        pairs=written,
        parts_read=sum(map(len, touched.values())),
        parts=sum(len(item.parts) for item in chosen.values()),
    )


def _table(schema: pa.Schema, targets: Targets, survey: str, alerts: pa.Table, pairs: Pairs) -> pa.Table:
    """Return the rows of the result for the pairs of one part."""
    of_alert = alerts.take(pa.array(pairs.alert))
    columns = {name: of_alert.column(name) for name in schema.names if name in alerts.column_names}
    columns["row"] = pa.array(pairs.row)
    columns["survey"] = pa.array([survey]).take(pa.array(np.zeros(len(pairs), dtype=np.int64)))
    columns["separation_arcsec"] = pa.array(pairs.separation_arcsec)
    columns["n_neighbours"] = pa.array(np.bincount(pairs.alert)[pairs.alert].astype(np.int32))
    if targets.id is not None:
        columns["id"] = targets.id.take(pa.array(pairs.row))
    return pa.table([columns[name] for name in schema.names], names=schema.names)


def _finder(targets: Targets) -> Find:
    """Return how alerts find the rows of the table: by one radius, by each row's own, or where a row has moved to."""
    index, given = build_index(targets.ra, targets.dec)
    radius = targets.radius_arcsec if len(targets.radius_arcsec) == 1 else targets.radius_arcsec[given]

    def with_given_rows(pairs: Pairs) -> Pairs:
        return Pairs(pairs.alert, given[pairs.row], pairs.separation_arcsec)

    if targets.pmra is not None and targets.pmdec is not None:
        pmra, pmdec = targets.pmra[given], targets.pmdec[given]
        moving = build_motion_classes(index, pmra, pmdec)
        widest = _widest(targets)

        def moved(positions: Positions, alerts: pa.Table) -> Pairs:
            year = julian_epoch(alerts.column("mjd").to_numpy())
            pairs = within_moving(positions, year, widest, index, moving, pmra, pmdec, targets.epoch)
            own = radius[pairs.row] if len(radius) > 1 else radius
            inside = (own > 0.0) & (pairs.separation_arcsec <= own)
            return with_given_rows(Pairs(pairs.alert[inside], pairs.row[inside], pairs.separation_arcsec[inside]))

        return moved
    if len(radius) == 1:
        return lambda positions, _: with_given_rows(within_at(positions, float(radius[0]), index))
    classes = build_classes(index, radius)
    return lambda positions, _: with_given_rows(within_reach(positions, classes))


def _widest(targets: Targets) -> float:
    radius = targets.radius_arcsec[targets.radius_arcsec > 0.0]
    return float(radius.max()) if len(radius) else -1.0


def _sky(targets: Targets, start: int, stop: int) -> reading.Sky | None:
    """Return the ledger cells within which alerts of these nights can be near a row; None for all."""
    reach = max(_widest(targets), 0.0)
    if targets.pmra is not None and targets.pmdec is not None and len(targets):
        years = (start // 10_000, stop // 10_000 + 1)
        reach += float(motion_reach_arcsec(targets.pmra, targets.pmdec, targets.epoch, *years).max())
    cells = np.unique(healpix.ang2pix(LEDGER_ORDER, targets.ra, targets.dec))
    return reading.sky_around(cells[cells >= 0], reach)
