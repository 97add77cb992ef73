"""ELAsTiCC normalisation: hand-computed alert, all samples, slow oracle."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from survey_oracles import assert_same, elasticc_alert
from survey_samples import files, raw_table, tarred

from pipeline import lightcurve as lc
from pipeline.errors import InputError
from pipeline.surveys import SURVEYS, get

ELASTICC = get("elasticc_v1")


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[dict]:
    folder = shared_data / "alerts/elasticc"
    return tarred(folder / "elasticc_5607_alerts.tar.gz") + files(
        "elasticc_v1", sorted((folder / "samples").glob("*.avro"))
    )


@pytest.fixture(scope="module")
def alerts(records: list[dict]) -> pa.Table:
    return ELASTICC.normalise(raw_table("elasticc_v1", records))


def source(**changes: object) -> dict:
    """diaSourceId 1436008 of the samples."""
    return {
        "diaSourceId": 1436008,
        "ccdVisitId": 111111,
        "diaObjectId": 718,
        "midPointTai": 60162.4297,
        "filterName": "z",
        "ra": 49.042969,
        "decl": -41.0145,
        "psFlux": 261.7472839355469,
        "psFluxErr": 13.96672534942627,
        "snr": 41.1,
        **changes,
    }


def one(record: dict) -> dict:
    raw = raw_table("elasticc_v1", [record])
    assert ELASTICC.faults(raw).to_pylist() == [None]
    return ELASTICC.normalise(raw).to_pylist()[0]


def check_hand_computed(alert: dict) -> None:
    assert (alert["alert_id"], alert["object_key"], alert["band"]) == (1436008, "718", "z")
    # zero point 27.5: 10^((31.4 - 27.5) / 2.5) = 10^1.56 = 36.307805 nJy a unit; x 261.747284 = 9503.469
    assert alert["flux_njy"] == pytest.approx(9503.469, abs=1e-3)
    assert alert["flux_err_njy"] == pytest.approx(507.101, abs=1e-3)
    # 27.5 - 2.5 log10(261.747284) = 27.5 - 2.5 x 2.417882 = 21.45529; 1.085736 x 13.966725 / 261.747284 = 0.05793
    assert alert["diff_mag"] == pytest.approx(21.45529, abs=1e-5)
    assert alert["diff_err_mag"] == pytest.approx(0.05793, abs=1e-5)
    assert alert["mjd"] == 60162.4297
    assert alert["utc_date"] == 20230806  # MJD 60162 is 2023-08-06
    assert alert["dec"] == -41.0145
    assert alert["exposure"] == 601624297


def test_the_alert_computed_by_hand() -> None:
    check_hand_computed(one({"diaSource": source()}))


def test_the_same_alert_in_the_samples(alerts: pa.Table) -> None:
    check_hand_computed(alerts.filter(pc.equal(alerts["alert_id"], 1436008)).to_pylist()[0])


def test_all_samples(records: list[dict], alerts: pa.Table) -> None:
    raw = raw_table("elasticc_v1", records)
    assert ELASTICC.faults(raw).null_count == alerts.num_rows > 5607
    assert {r["alertId"] for r in records[:5607]} == {1231321321}  # never a key
    assert ELASTICC.alert_id(raw).to_pylist() == [r["diaSource"]["diaSourceId"] for r in records]
    assert alerts["n_detections"].to_pylist() == [1 + len(r["prvDiaSources"] or []) for r in records]
    assert not ELASTICC.night_disagreement(raw, alerts).any()
    assert not pc.any(alerts["is_solar_system"]).as_py()
    assert set(alerts["band"].to_pylist()) == set("ugrizy")
    assert ELASTICC.processed_mjd(raw).null_count == alerts.num_rows


def test_samples_against_the_oracle(records: list[dict], alerts: pa.Table) -> None:
    step = 10
    assert_same(alerts.take(list(range(0, len(records), step))), [elasticc_alert(r) for r in records[::step]])


def test_the_placeholder_visit_does_not_merge_epochs() -> None:
    previous = [source(diaSourceId=k, midPointTai=60162.4297 - k) for k in (1, 2)]
    forced = [{"ccdVisitId": 111111, "midPointTai": 60162.4297, "filterName": "z", "psFlux": 260.0, "psFluxErr": 14.0}]
    raw = raw_table("elasticc_v1", [{"diaSource": source(), "prvDiaSources": previous, "prvDiaForcedSources": forced}])
    alerts = ELASTICC.normalise(raw)
    assert alerts["n_light_curve"].to_pylist() == [4]
    assert lc.count(lc.offsets(lc.primary(alerts["light_curve"]))).tolist() == [3]


def test_the_night_starts_at_noon() -> None:
    # MJD 60162.4297 - 0.5 is still 60161: 2023-08-05; half a day later 2023-08-06
    rows = [{"diaSource": source()}, {"diaSource": source(midPointTai=60162.51)}]
    assert ELASTICC.night_of(ELASTICC.normalise(raw_table("elasticc_v1", rows))).tolist() == [20230805, 20230806]


def test_the_capital_y_is_y() -> None:
    assert one({"diaSource": source(filterName="Y")})["band"] == "y"


def test_campaigns_are_surveys_of_their_own() -> None:
    assert list(SURVEYS) == ["ztf", "lsst", "elasticc_v1", "elasticc_v2_0", "elasticc_v2_1"]
    assert get("elasticc_v2_1").superset == get("elasticc_v1").superset
    with pytest.raises(InputError, match="elasticc_v2_0"):
        get("elasticc")
