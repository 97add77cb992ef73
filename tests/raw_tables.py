"""Raw tables of any survey made of awkward values: nulls everywhere, sentinels, NaN, empty and hidden histories."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from survey_samples import raw_schema

NAN, INF = math.nan, math.inf
MAG = [None, NAN, -999.0, 0.0, 14.28, 18.5, 20.123, 21.7, -2000.0, 31.4]
FLUX = [None, NAN, -999.0, -99999.0, 0.0, -0.0, 12.5, -700.25, 1e300, 3e38, INF]
SIGMA = [None, NAN, INF, -1.0, 0.0, 0.05, 33.3]
ID = [None, 0, -9, 1, 2, 3, 4, 5, 2**53 + 1, 2**62]
JD = [None, NAN, 2457754.5, 2457754.4, 2458451.7519213, 2458451.7519214, 2458451.77, 2458470.25, 2490000.5, 2490000.6]
MJD = [None, NAN, 1480360995.0, 41682.9, 61109.1447367893, 61109.1447367894, 61109.25, 60000.0, 90000.0, 90001.0]
TEXT = [None, "", "null", "None", "nan", "0", "x", "d6_m7"]

_GROUPS = (
    (MAG, "magpsf magnr diffmaglim magzpsci maggaia"),
    (SIGMA, "sigmapsf sigmagnr forcediffimfluxunc psfFluxErr psFluxErr scienceFluxErr totFluxErr diaNoise ixxPSF"),
    (SIGMA, "iyyPSF fwhm rb drb ssdistnr ephOffset reliability distpsnr1 sgscore1 neargaia"),
    (FLUX, "forcediffimflux psfFlux psFlux scienceFlux totFlux"),
    (ID, "candid pid diaSourceId diaObjectId ssObjectId nDiaSources"),
    (JD, "jd jdstarthist"),
    (MJD, "midpointMjdTai midPointTai firstDiaSourceMjdTai"),
    (TEXT, "objectId ssnamenr drbversion designation mpcDesignation"),
    ([None, "", *"ugrizyY", "qq"], "band filterName"),
    ([None, None, NAN, 61109.5], "timeWithdrawnMjdTai timeProcessedMjdTai"),
    ([None, True, False, False], "isDipole isNegative is_negative psfFlux_flag glint_trail pixelFlags_injected"),
)
POOLS: dict[str, list] = {
    **{name: pool for pool, names in _GROUPS for name in names.split()},
    "distnr": [*SIGMA, 1.5, 1.51],
    "isdiffpos": [None, "", "t", "f", "1", "0", "true", "false", "tt", "F"],
    "procstatus": [None, "", "0", "0", "0", "56", "null"],
    "fid": [None, -1, 0, 1, 2, 3, 4],
    "field": [None, -1, 0, 1, 600],
    "rcid": [None, -1, 0, 63],
    "exptime": [None, NAN, -999.0, 0.0, 30.0, 60.0],
    "nid": [None, 0, 697, 698],
    "nbad": [None, -1, 0, 1],
    "programid": [None, 1, 2],
    "visit": [None, 0, 5, 2026030900026, 2026030900027, 2**62],
    "detector": [None, -1, 0, 173, 999, 1000],
    "ccdVisitId": [None, 0, 7, 8, 111111],
    "ra": [None, NAN, 0.0, 150.8, 359.99, 720.5],
    "dec": [None, NAN, 0.0, -89.9, 90.5],
    "decl": [None, NAN, 0.0, -89.9, 90.5],
    "time_processed": [None, 0, 1_700_000_000_000_000],
}
SOUND = {
    "jd": JD[4:9],
    "midpointMjdTai": [None, *MJD[4:8]],
    "midPointTai": MJD[4:8],
    "fid": [1, 2, 3],
    "ra": [0.0, 150.8],
    "dec": [0.0, -89.9],
    "decl": [0.0, 45.0],
    "band": [None, "g", "Y"],
    "filterName": ["r", "y"],
    "candid": [1, 2, 2**53 + 1],
    "objectId": ["ZTF18abyouwp", "nan "],
    "diaSourceId": [1, 2, 2**53 + 1],
}
"""Values of the triggering record, for rows that are to be without fault."""
_WIDER = {pa.float32(): pa.float64(), pa.int32(): pa.int64(), pa.string(): pa.large_string()}


def raw_table(survey: str, seed: int, n: int, *, longest: int, is_sound: bool, is_wide: bool) -> pa.Table:
    """Return ``n`` rows; ``is_wide``: every number of 64 bits, long lists and strings."""
    draw = np.random.Generator(np.random.Philox(key=seed))
    fields = [pa.field(field.name, wider(field.type)) if is_wide else field for field in raw_schema(survey)]
    columns = []
    for field in fields:
        if pa.types.is_struct(field.type):
            sound = SOUND if is_sound and field.name in ("candidate", "diaSource") else {}
            columns.append(_struct(draw, field.type, n, sound, 0.0 if sound or draw.random() < 0.5 else 0.2))
        elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            columns.append(_lists(draw, field.type, n, longest))
        else:
            columns.append(_flat(draw, field, n, SOUND if is_sound else {}))
    return pa.table(columns, schema=pa.schema(fields))


def wider(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(child.name, wider(child.type)) for child in dtype])
    if pa.types.is_list(dtype):
        return pa.large_list(wider(dtype.value_type))
    return _WIDER.get(dtype, dtype)


def _flat(draw: np.random.Generator, field: pa.Field, n: int, sound: dict[str, list]) -> pa.Array:
    pool = sound.get(field.name, POOLS.get(field.name))
    if pool is None or (draw.random() < 0.1 and field.name not in sound):
        return pa.nulls(n, field.type)
    if draw.random() < 0.2:
        pool = [value for value in pool if value is not None]
    if field.type == pa.int32():
        pool = [None if value is None or abs(value) > 2**31 - 1 else value for value in pool]
    return pa.array([pool[k] for k in draw.integers(0, len(pool), n)], field.type)


def _struct(
    draw: np.random.Generator, dtype: pa.StructType, n: int, sound: dict[str, list], null_rate: float
) -> pa.StructArray:
    children = [_flat(draw, field, n, sound) for field in dtype]
    mask = pa.array(draw.random(n) < null_rate) if null_rate else None
    return pa.StructArray.from_arrays(children, fields=list(dtype), mask=mask)


def _lists(draw: np.random.Generator, dtype: pa.DataType, n: int, longest: int) -> pa.Array:
    lengths = draw.integers(0, longest + 1, n)
    is_null = draw.random(n) < draw.choice([0.0, 0.3])
    if draw.random() < 0.5:  # else null lists that hide elements
        lengths[is_null] = 0
    ends = np.concatenate([[0], np.cumsum(lengths)])
    elements = _struct(draw, dtype.value_type, int(ends[-1]), {}, float(draw.choice([0.0, 0.1])))
    kind, width = (pa.LargeListArray, pa.int64()) if pa.types.is_large_list(dtype) else (pa.ListArray, pa.int32())
    mask = pa.array(is_null) if is_null.any() else None
    return kind.from_arrays(pa.array(ends, width), elements, type=dtype, mask=mask)
