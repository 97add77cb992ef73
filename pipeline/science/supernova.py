"""Science module: supernova or other, by gradient-boosted trees."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.classify import Model, design_matrix, predict
from pipeline.features import rates, statistics
from pipeline.lightcurve import booleans
from pipeline.schema import column
from pipeline.science.registry import science_module

MINIMUM_DETECTIONS = 3

_BANDS = ("g", "r", "i")
_FLAT = (
    "is_positive",
    "diff_mag",
    "n_detections",
    "n_upper_limits",
    "reference_separation_arcsec",
    "reference_mag",
    "star_score",
    "star_separation_arcsec",
    "gaia_separation_arcsec",
    "gaia_mag",
)

FEATURES = (
    *(f"feat_{band}_{name}" for band in _BANDS for name in statistics.NAMES),
    *(f"feat_{band}_{name}" for band in _BANDS for name in ("n_detections", *rates.NAMES)),
    "feat_g_minus_r_mag",
    "feat_r_minus_i_mag",
    "feat_any_n_bands",
    "feat_any_positive_fraction",
    "feat_any_age_days",
    *_FLAT,
)
"""Feature columns, in the order of the model's inputs."""

FEATURE_MODULES = ("light_curve_statistics", "light_curve_rates")
"""Science modules whose version a model is bound to."""

_COLUMNS = (
    column("clf_supernova_score", pa.float32(), doc="score of being a supernova, 0 to 1"),
    column("clf_supernova_class", pa.string(), doc="supernova or other, at the threshold of the model's card"),
    column("clf_supernova_reason", pa.string(), doc="why there is no score: solar_system, fewer_than_3_detections"),
)


@science_module(
    version=1,
    requires=[*FEATURES, "is_solar_system"],
    produces=_COLUMNS,
    libs=("xgboost-cpu",),
    resources=("model",),
)
def supernova(alerts: pa.Table, *, model: Model) -> pa.Table:
    """Score how much an alert looks like a supernova (any type) rather than anything else.

    What: gradient-boosted trees on the statistics, rates and colors of the g, r and i light curves and on the nearest
    star and reference source. The model's card says what it was trained on and how it was judged; scores are at equal
    odds, not at the odds of the stream.

    Minimum points: 3 detections; known Solar System objects are not scored. The reason stands beside the null.

    Units: none.

    Reference: Chen & Guestrin 2016, doi:10.1145/2939672.2939785

    Surveys: simulated ZTF; not validated on real data.
    """
    known = booleans(alerts.column("is_solar_system"))
    few = ~booleans(pc.greater_equal(alerts.column("n_detections"), MINIMUM_DETECTIONS))
    unscored = known | few
    score = np.zeros(alerts.num_rows, dtype=np.float32)
    scored = np.flatnonzero(~unscored)
    score[scored] = predict(model, design_matrix(alerts.take(pa.array(scored)), model.features))
    label = np.where(score >= np.float32(model.threshold), model.positive, model.negative)
    reason = np.where(known, "solar_system", "fewer_than_3_detections")
    return pa.table(
        [
            pa.array(score, mask=unscored),
            pa.array(label.astype(object), pa.string(), mask=unscored),
            pa.array(reason.astype(object), pa.string(), mask=~unscored),
        ],
        schema=pa.schema(_COLUMNS),
    )
