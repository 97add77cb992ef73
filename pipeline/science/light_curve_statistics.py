"""Science module: the 26 light-curve statistics per band."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.features.points import BANDS, detections
from pipeline.features.statistics import COLUMNS, NAMES, statistics
from pipeline.science.registry import science_module


@science_module(version=1, requires=["light_curve"], produces=COLUMNS, libs=("light-curve",))
def light_curve_statistics(alerts: pa.Table) -> pa.Table:
    """Measure the 26 statistics of the package light-curve in each band.

    What: mean, spread, shape, trend and variability of the detections in a band, each exposure once, forced photometry
    left out. Measured on magnitudes: of the total flux where that is known at half of the band's detections or more (a
    variable star; ZTF within 1.5 arcsec of a reference source, Rubin), else of the absolute difference flux (a
    transient, whose sign is in the rates module). A band is judged by itself: the value depends on no other alert.

    Minimum points: 1 to 4 detections in the band, by statistic (stated with each column); null below, and where a
    constant light curve leaves a ratio undefined.

    Units: mag, mag / d; ratios have none.

    Reference: Malanchev et al. 2021, doi:10.1093/mnras/stab316

    Surveys: ZTF, compared with another broker's values of the night 2024-01-15. Rubin, ELAsTiCC: not validated.
    """
    return _by_band(statistics(detections(alerts.column("light_curve"))), alerts.num_rows)


def _by_band(measured: NDArray[np.float64], n: int) -> pa.Table:
    values = np.ascontiguousarray(measured.reshape(len(BANDS), n, len(NAMES)).transpose(0, 2, 1))
    arrays = [pa.array(row, from_pandas=True) for row in values.reshape(len(COLUMNS), n)]
    return pa.table(arrays, schema=pa.schema(COLUMNS))
