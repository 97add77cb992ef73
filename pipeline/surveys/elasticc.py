"""ELAsTiCC: simulated Rubin alerts, packets 0.9 and 0.9.1 (The LSST DESC, ELAsTiCC, 2022 to 2024).

Facts of these campaigns: fluxes have the SNANA zero point 27.5; times are rounded to 0.0001 d; ``alertId`` is not
unique and never a key; ``snr`` is not that of the measurement; ``ccdVisitId`` is 111111 in every record, so the
exposure is told by its rounded time. Each campaign numbers its objects anew and is a survey of its own.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import luminosity
from pipeline.lightcurve import MISSING, Bool, Float, Int, Points
from pipeline.photometry import flux_at_zero_point
from pipeline.surveys import lsst
from pipeline.surveys.base import Survey
from pipeline.surveys.lsst_points import BANDS, Dialect
from pipeline.surveys.records import Records

SNANA_ZERO_POINT_MAG = 27.5
EXPOSURES_PER_DAY = 10_000
CAMPAIGNS = ("elasticc_v1", "elasticc_v2_0", "elasticc_v2_1")


def exposure_of(records: Records, mjd: Float) -> Int:
    """Return the time in units of 0.0001 d, int64 (n,): what tells exposures apart where no visit is given."""
    known = np.isfinite(mjd)
    return np.where(known, np.round(np.where(known, mjd, 0.0) * EXPOSURES_PER_DAY).astype(np.int64), MISSING)


DIALECT = Dialect(njy_per_unit=float(flux_at_zero_point(1.0, SNANA_ZERO_POINT_MAG)), exposure=exposure_of)


def normalise(raw: pa.Table) -> pa.Table:
    """Return the canonical alerts of packets without fault: same rows, same order, any version, any slice."""
    return lsst.normalise_with(raw, DIALECT, _no_more_columns)


def _no_more_columns(packet: Records, trigger: Points) -> dict[str, pa.Array | NDArray]:
    return {}


def night_of(alerts: pa.Table) -> NDArray[np.int32]:
    """Return the observing night, YYYYMMDD int32 (n,): the date half a day earlier, as for Rubin."""
    return lsst.observing_date(alerts.column("mjd").to_numpy())


def night_disagreement(raw: pa.Table, alerts: pa.Table) -> Bool:
    """Return False for every row: these packets name no night."""
    return np.zeros(alerts.num_rows, dtype=bool)


def processed_mjd(raw: pa.Table) -> pa.Array:
    """Return null for every row: these packets name no time of processing."""
    return pa.nulls(raw.num_rows, pa.float64())


def forced_losses(raw: pa.Table) -> dict[str, int]:
    """Return the forced points shipped that are no measurement, by reason."""
    return lsst.losses(raw, DIALECT)


ELASTICC = tuple(
    Survey(
        name=campaign,
        bands=BANDS,
        passbands=luminosity.LSST,
        cutout_columns=("cutoutDifference", "cutoutTemplate"),
        alert_id=lsst.alert_id,
        faults=lsst.source_faults,
        normalise=normalise,
        night_of=night_of,
        night_disagreement=night_disagreement,
        processed_mjd=processed_mjd,
        forced_losses=forced_losses,
        night_over_hours=36.0,  # as for Rubin
    )
    for campaign in CAMPAIGNS
)
