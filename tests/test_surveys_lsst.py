"""Rubin normalisation: hand-computed alert, a real night, every schema version, slow oracle."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_oracles import FLAGS as FLAGS_OF_BAD
from survey_oracles import assert_same, rubin_alert
from survey_samples import files, raw_schema, raw_table, transfer

from pipeline import lightcurve as lc
from pipeline.surveys import get

LSST = get("lsst")
NAN = float("nan")


@pytest.fixture(scope="module")
def night(shared_data: Path) -> tuple[pa.Table, list[dict]]:
    return transfer(shared_data / "alerts/lsst/fink_transfer_2026-03-10")


@pytest.fixture(scope="module")
def alerts(night: tuple[pa.Table, list[dict]]) -> pa.Table:
    return LSST.normalise(night[0])


@pytest.fixture(scope="module")
def versions(shared_data: Path) -> list[dict]:
    folder = shared_data / "alerts/lsst"
    samples = sorted((folder / "alert_packet_samples").rglob("fakeAlert.avro"))
    wire = sorted(path for kind in ("wire_v7.1_v7.3", "wire_v7.4", "wire_id900") for path in (folder / kind).rglob("*"))
    return files("lsst", [*samples, *(path for path in wire if path.suffix == ".avro")])


def source(**changes: object) -> dict:
    """diaSourceId 170112044583354426 of the night 20260309, as far as the arithmetic below needs it."""
    return {
        "diaSourceId": 170112044583354426,
        "visit": 2026030900026,
        "detector": 173,
        "diaObjectId": 313963405132693599,
        "ssObjectId": 0,
        "midpointMjdTai": 61109.1447367893,
        "ra": 150.8140329842675,
        "dec": 3.129071178737968,
        "psfFlux": 3913.9453125,
        "psfFluxErr": 287.6147766113281,
        "scienceFlux": 43510.81640625,
        "scienceFluxErr": 289.667724609375,
        "band": "g",
        "isNegative": False,
        "ixxPSF": 0.38896307349205017,
        "iyyPSF": 0.41539353132247925,
        "timeProcessedMjdTai": 61109.146566699346,
        **changes,
    }


def packet(prv: list | None = None, forced: list | None = None, more: dict | None = None, **changes: object) -> dict:
    return {"diaSource": source(**changes), "prvDiaSources": prv, "prvDiaForcedSources": forced, **(more or {})}


def one(record: dict) -> dict:
    raw = raw_table("lsst", [record])
    assert LSST.faults(raw).to_pylist() == [None]
    return LSST.normalise(raw).to_pylist()[0]


def check_hand_computed(alert: dict) -> None:
    assert alert["alert_id"] == 170112044583354426
    assert alert["object_key"] == "313963405132693599"
    assert alert["mjd"] == 61109.1447367893  # already TAI at mid-visit
    assert (alert["flux_njy"], alert["flux_err_njy"]) == (3913.9453125, 287.6147766113281)
    # 31.4 - 2.5 log10(3913.9453) = 31.4 - 2.5 x 3.592615 = 22.41846; 2.5 / ln(10) x 287.6148 / 3913.9453 = 0.07978
    assert alert["diff_mag"] == pytest.approx(22.41846, abs=1e-5)
    assert alert["diff_err_mag"] == pytest.approx(0.07978, abs=1e-5)
    # 31.4 - 2.5 log10(43510.816) = 31.4 - 2.5 x 4.638597 = 19.80351
    assert alert["total_mag"] == pytest.approx(19.80351, abs=1e-5)
    # 2026030900026 x 1000 + 173
    assert alert["exposure"] == 2026030900026173
    # 61109.1447 TAI - 37 s is on 2026-03-10 UTC; the visit names the night 2026-03-09
    assert alert["utc_date"] == 20260310
    # 2.35482 x sqrt((0.388963 + 0.415394) / 2) = 1.49337 arcsec
    assert alert["seeing_arcsec"] == pytest.approx(1.49337, abs=1e-5)


def test_the_alert_computed_by_hand() -> None:
    check_hand_computed(one(packet()))


def test_the_same_alert_in_the_real_night(night: tuple[pa.Table, list[dict]], alerts: pa.Table) -> None:
    place = pc.index(alerts["alert_id"], 170112044583354426).as_py()
    alert = alerts.slice(place, 1)
    check_hand_computed(alert.to_pylist()[0])
    record = night[1][place]
    assert (len(record["prvDiaSources"]), len(record["prvDiaForcedSources"])) == (1067, 25)
    assert alert["n_light_curve"].to_pylist() == [1067 + 1 + 25]
    primary = lc.primary(alert["light_curve"])
    assert lc.count(lc.offsets(primary)).tolist() == [1083]
    assert lc.count(lc.offsets(lc.forced(alert["light_curve"]))).tolist() == [25]


def test_a_real_night(night: tuple[pa.Table, list[dict]], alerts: pa.Table) -> None:
    raw, records = night
    assert alerts.num_rows == LSST.faults(raw).null_count == 74
    assert set(LSST.night_of(alerts).tolist()) == {20260309}
    assert not LSST.night_disagreement(raw, alerts).any()
    # isNegative is a flag, not the sign: 7 disagree, all of them dipoles
    differ = pc.equal(alerts["is_positive"], alerts["is_negative_detection"])
    assert pc.sum(differ).as_py() == 7
    assert all(alerts.filter(differ)["is_dipole"].to_pylist())
    assert pc.sum(alerts["is_solar_system"]).as_py() == 20
    keys = alerts["object_key"].to_pylist()
    assert "0" not in keys and len(set(keys)) == 74
    assert sum(key.startswith("ss:") for key in keys) == 20
    assert alerts["solar_system_name"].null_count == 54
    assert alerts["is_injected"].to_pylist() == [False] * 74
    assert alerts["n_upper_limits"].to_pylist() == [0] * 74
    at_trigger = 0
    for exposure, curve in zip(alerts["exposure"].to_pylist(), alerts["light_curve"].to_pylist(), strict=True):
        points = list(zip(curve["exposure"], curve["is_forced"], strict=True))
        assert points.count((exposure, False)) == 1
        at_trigger += (exposure, True) in points
    assert at_trigger == 51
    processed = LSST.processed_mjd(raw).to_pylist()
    assert processed == [r["diaSource"]["timeProcessedMjdTai"] for r in records]
    assert LSST.forced_losses(raw) == {}


def test_a_real_night_against_the_oracle(night: tuple[pa.Table, list[dict]], alerts: pa.Table) -> None:
    assert_same(alerts, [rubin_alert(r) for r in night[1]])


def test_every_schema_version(versions: list[dict]) -> None:
    assert len(versions) == 14 + 9
    raw = raw_table("lsst", versions)
    assert LSST.faults(raw).null_count == len(versions)
    alerts = LSST.normalise(raw)
    assert_same(alerts, [rubin_alert(r) for r in versions])
    # the samples of 3.0 to 7.4 say 1480360995 s after 1970: 2016-11-28 19:23 (TAI)
    assert LSST.night_of(alerts)[:14].tolist() == [20250815] * 2 + [20161128] * 10 + [20250815] * 2
    # and the wire packets are of 2016 (precursor data), of 2025 and of a rehearsal that is dated 2026
    assert set(LSST.night_of(alerts)[14:].tolist()) == {20160306, 20250905, 20251012, 20260930}


def test_old_names_of_fields_are_read(versions: list[dict]) -> None:
    old = [r for r in versions if "midPointTai" in r["diaSource"]]
    assert len(old) == 2
    raw = raw_table("lsst", old)
    for alert, record in zip(LSST.normalise(raw).to_pylist(), old, strict=True):
        assert alert["dec"] == record["diaSource"]["decl"]
        assert alert["band"] == record["diaSource"]["filterName"]
        assert alert["flux_njy"] == record["diaSource"]["psFlux"]
        assert alert["exposure"] is None  # ccdVisitId 111111 is the placeholder of samples
        assert alert["n_detections"] == 1 + len(record["prvDiaSources"])


def test_processing_time_of_version_8_is_converted() -> None:
    # 2025-08-15 00:00:00 UTC = MJD 60902; + 37 s
    record = packet(timeProcessedMjdTai=None, time_processed=1755216000 * 10**6)
    raw = raw_table("lsst", [record, packet(timeProcessedMjdTai=None)])
    assert LSST.processed_mjd(raw).to_pylist() == [pytest.approx(60902 + 37 / 86400, abs=1e-9), None]


@pytest.mark.parametrize(
    ("changes", "more", "key", "expected"),
    [
        ({"diaObjectId": 0, "ssObjectId": 99}, {}, "object_key", "ss:99"),
        ({"diaObjectId": None, "ssObjectId": 99}, {}, "object_key", "ss:99"),
        ({"diaObjectId": 0, "ssObjectId": 0}, {}, "object_key", "src:170112044583354426"),
        ({"diaObjectId": None, "ssObjectId": None}, {}, "object_key", "src:170112044583354426"),
        ({"diaObjectId": 0}, {"diaObject": {"diaObjectId": 7}}, "object_key", "7"),
        ({"diaObjectId": 0}, {"diaObject": {"diaObjectId": 0}}, "object_key", "src:170112044583354426"),
        ({"ssObjectId": 0}, {"ssSource": {"designation": "x"}}, "is_solar_system", False),
        ({"ssObjectId": 0}, {"ssSource": {"designation": "x"}}, "solar_system_name", None),
        ({"ssObjectId": 5}, {"ssSource": {"designation": "1999 AB"}}, "solar_system_name", "1999 AB"),
        ({"ssObjectId": 5}, {"MPCORB": {"mpcDesignation": "1999 AC"}}, "solar_system_name", "1999 AC"),
        ({"ssObjectId": 5}, {"ssSource": {"ephOffset": 0.25}}, "solar_system_separation_arcsec", 0.25),
        ({"psfFlux": -10.0}, {}, "is_positive", False),
        ({"psfFlux": -10.0, "isNegative": False}, {}, "is_negative_detection", False),
        ({"isNegative": None, "is_negative": True}, {}, "is_negative_detection", True),
        ({"scienceFlux": -1.0}, {}, "total_mag", None),
        ({"psfFlux": NAN}, {}, "flux_njy", None),
        ({"psfFlux": -999.0}, {}, "flux_njy", -999.0),
        ({"pixelFlags_injected": True}, {}, "is_injected", True),
        ({}, {}, "is_injected", None),
        ({"glint_trail": True}, {}, "is_glint_flagged", True),
        ({}, {}, "first_mjd_is_bound", True),
        ({}, {"diaObject": {"nDiaSources": 1}}, "first_mjd_is_bound", False),
        ({}, {"diaObject": {"nDiaSources": 9}}, "first_mjd_is_bound", True),
        ({}, {"diaObject": {"firstDiaSourceMjdTai": 60000.0}}, "first_mjd", 60000.0),
        ({}, {"diaObject": {"firstDiaSourceMjdTai": 61200.0}}, "first_mjd", 61109.1447367893),
        ({"visit": 59142}, {}, "exposure", 59142173),
        ({"visit": None, "detector": None, "ccdVisitId": 123}, {}, "exposure", 123),
    ],
)
def test_one_rule_at_a_time(changes: dict, more: dict, key: str, expected: object) -> None:
    assert one(packet(more=more, **changes))[key] == expected


GOOD = dict.fromkeys(FLAGS_OF_BAD, False)


def test_good_quality() -> None:
    assert one(packet(**GOOD))["is_good_quality"] is True
    assert all(one(packet(**{**GOOD, flag: True}))["is_good_quality"] is False for flag in GOOD)
    assert one(packet(**{**GOOD, "isDipole": None}))["is_good_quality"] is None
    assert one(packet(**GOOD, psfFlux=-3913.0))["is_good_quality"] is False
    assert one(packet(**GOOD, psfFlux=5.9, psfFluxErr=1.0))["is_good_quality"] is False
    assert one(packet(**GOOD, psfFlux=6.0, psfFluxErr=1.0))["is_good_quality"] is True
    assert one(packet(**GOOD, psfFluxErr=None))["is_good_quality"] is None


def test_a_struct_of_nulls_is_a_null_struct() -> None:
    nothing = {field.name: None for field in raw_schema("lsst").field("diaObject").type}
    without, hollow = one(packet(diaObjectId=0)), one(packet(diaObjectId=0, more={"diaObject": nothing}))
    assert without == hollow


@pytest.mark.parametrize(("visit", "mjd", "night"), [(2026030900026, 61109.1, 20260309), (59142, 57454.6, 20160307)])
def test_the_night_is_named_by_the_visit_or_starts_at_noon(visit: int, mjd: float, night: int) -> None:
    # without a dated visit: MJD 57454.6 - 0.5 = 57454.1, which is 2016-03-07
    assert LSST.night_of(LSST.normalise(raw_table("lsst", [packet(visit=visit, midpointMjdTai=mjd)]))) == [night]


def test_a_visit_of_another_night_is_reported() -> None:
    raw = raw_table("lsst", [packet(), packet(midpointMjdTai=61110.6), packet(visit=None, midpointMjdTai=61110.6)])
    assert LSST.night_disagreement(raw, LSST.normalise(raw)).tolist() == [False, True, False]


def test_withdrawn_records_are_no_measurements() -> None:
    previous = source(diaSourceId=5, visit=2026030800001)
    forced = {"visit": 2026030800002, "detector": 1, "midpointMjdTai": 61108.0, "band": "r", "psfFlux": 1.0}
    gone = {"timeWithdrawnMjdTai": 61109.0}
    record = packet(prv=[previous, {**previous, **gone}], forced=[forced, {**forced, **gone}, {**forced, "band": "q"}])
    assert one(record)["n_light_curve"] == 3
    assert LSST.forced_losses(raw_table("lsst", [record])) == {"withdrawn": 1, "no time or band": 1}


def test_the_trigger_in_its_own_history_is_dropped() -> None:
    alert = one(packet(prv=[source(), source(diaSourceId=5, visit=2026030800001, midpointMjdTai=61108.0)]))
    assert alert["light_curve"]["mjd"] == [61108.0, 61109.1447367893]


def test_non_detections_of_old_packets_become_limits() -> None:
    limit = {"ccdVisitId": 9, "midpointMjdTai": 61108.0, "band": "r", "diaNoise": 100.0}
    alert = one(packet(more={"prvDiaNondetectionLimits": [limit, {**limit, "diaNoise": 0.0}]}))
    assert alert["upper_limits"] == {"mjd": [61108.0], "flux_limit_njy": [500.0], "band": ["r"], "exposure": [9]}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"diaSourceId": 0}, "diaSourceId"),
        ({"diaSourceId": None}, "diaSourceId"),
        ({"ra": NAN}, "position"),
        ({"dec": 90.5}, "position"),
        ({"midpointMjdTai": None}, "midpointMjdTai"),
        ({"midpointMjdTai": 0.0}, "midpointMjdTai"),
        ({"band": "q"}, "band"),
        ({"band": None}, "band"),
    ],
)
def test_faults_name_the_field(changes: dict, fault: str) -> None:
    assert fault in LSST.faults(raw_table("lsst", [packet(**changes)])).to_pylist()[0]


def test_schema_versions_are_ordered() -> None:
    ordered = ["lsst.v7_4", "lsst.v9_0", "lsst.v10_0", "lsst.v11_0", "11.1"]
    ranks = [LSST.version_rank(version) for version in ordered]
    assert all(low < high for low, high in pairwise(ranks))


# --------------------------------------------------------------------------------------------- generated packets
def maybe(strategy: st.SearchStrategy, *others: object) -> st.SearchStrategy:
    return st.one_of(strategy, st.sampled_from([None, *others]))


MJD = st.integers(0, 400).map(lambda k: 61000.0 + k / 8)
FLUX = maybe(st.floats(-1e5, 1e5, width=32), NAN)
IDS = maybe(st.integers(0, 6))
POINT = {
    "midpointMjdTai": maybe(MJD, NAN, 0.0),
    "midPointTai": maybe(MJD),
    "band": maybe(st.sampled_from("ugrizyYq")),
    "filterName": maybe(st.sampled_from("gY")),
    "visit": maybe(st.integers(0, 3), 2026030900026),
    "detector": maybe(st.integers(0, 3), -1, 1000),
    "ccdVisitId": maybe(st.integers(0, 3), 111111),
    "psfFlux": FLUX,
    "psFlux": FLUX,
    "psfFluxErr": FLUX,
    "scienceFlux": FLUX,
    "scienceFluxErr": FLUX,
    "totFlux": FLUX,
    "timeWithdrawnMjdTai": st.sampled_from([None, None, None, 61500.0]),
}
LIMIT = {**{k: POINT[k] for k in ("midpointMjdTai", "band", "ccdVisitId")}, "diaNoise": FLUX}
FLAG = st.sampled_from([None, False, True])
FLAGS = dict.fromkeys((*GOOD, "isNegative", "is_negative", "pixelFlags_injected", "glint_trail"), FLAG)
SOURCE = st.builds(
    lambda point, fixed: {**point, **fixed},
    st.fixed_dictionaries({}, optional={**POINT, **FLAGS, "ixxPSF": FLUX, "iyyPSF": FLUX}),
    st.fixed_dictionaries(
        {
            "diaSourceId": st.integers(1, 6),
            "diaObjectId": IDS,
            "ssObjectId": IDS,
            "midpointMjdTai": MJD,
            "band": st.sampled_from("ugrizy"),
            "ra": st.floats(0, 360, exclude_max=True),
            "dec": st.floats(-90, 90),
        }
    ),
)


def points(fields: dict) -> st.SearchStrategy:
    return st.one_of(st.none(), st.lists(maybe(st.fixed_dictionaries({}, optional=fields)), max_size=6))


RECORD = st.fixed_dictionaries(
    {"diaSource": SOURCE, "prvDiaSources": points({**POINT, "diaSourceId": IDS}), "prvDiaForcedSources": points(POINT)},
    optional={
        "prvDiaNondetectionLimits": points(LIMIT),
        "diaObject": maybe(
            st.fixed_dictionaries(
                {}, optional={"diaObjectId": IDS, "nDiaSources": IDS, "firstDiaSourceMjdTai": maybe(MJD, NAN)}
            )
        ),
        "ssSource": maybe(
            st.fixed_dictionaries(
                {}, optional={"ssObjectId": IDS, "designation": maybe(st.sampled_from(["", "1999 AB"]))}
            )
        ),
    },
)


@settings(max_examples=80, deadline=None)
@given(st.lists(RECORD, max_size=4))
def test_generated_packets_against_the_oracle(records: list[dict]) -> None:
    raw = raw_table("lsst", records)
    assert LSST.faults(raw).null_count == len(records)
    assert_same(LSST.normalise(raw), [rubin_alert(r) for r in raw.to_pylist()])
