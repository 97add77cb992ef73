"""ZTF normalisation: hand-computed alert, real packets of every version, slow oracle."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_oracles import assert_same, ztf_alert
from survey_samples import files, raw_table, tarred

from pipeline import lightcurve as lc
from pipeline.surveys import get

ZTF = get("ztf")


@pytest.fixture(scope="module")
def night(shared_data: Path) -> list[dict]:
    return tarred(shared_data / "alerts/ztf/ztf_public_20181129.tar.gz")


@pytest.fixture(scope="module")
def versions(shared_data: Path) -> list[dict]:
    folder = shared_data / "alerts/ztf"
    paths = [*sorted((folder / "versions").rglob("*.avro")), *sorted((folder / "object_ZTF21abiuvdk").glob("*.avro"))]
    return files("ztf", paths)


@pytest.fixture(scope="module")
def alerts(night: list[dict]) -> pa.Table:
    return ZTF.normalise(raw_table("ztf", night))


def candidate(**changes: object) -> dict:
    """Candid 697251920015010010 of the public night 20181129, as far as the arithmetic below needs it."""
    return {
        "jd": 2458451.7519213,
        "fid": 1,
        "pid": 697251920015,
        "nid": 697,
        "programid": 1,
        "candid": 697251920015010010,
        "isdiffpos": "f",
        "magpsf": 14.283453,
        "sigmapsf": 0.03873668,
        "magnr": 12.049,
        "sigmagnr": 0.011,
        "distnr": 0.24791085720062256,
        "ra": 26.8566983,
        "dec": -26.9677112,
        "field": 248,
        "rcid": 0,
        "exptime": 30.0,
        "rb": 0.61,
        "nbad": 0,
        **changes,
    }


def packet(prv: list[dict] | None = None, fp: list[dict] | None = None, **changes: object) -> dict:
    c = candidate(**changes)
    return {"objectId": "ZTF18abyouwp", "candid": c["candid"], "candidate": c, "prv_candidates": prv, "fp_hists": fp}


def one(record: dict) -> dict:
    raw = raw_table("ztf", [record])
    assert ZTF.faults(raw).to_pylist() == [None]
    return ZTF.normalise(raw).to_pylist()[0]


def check_hand_computed(alert: dict) -> None:
    # jd 2458451.7519213 - 2400000.5 = 58451.2519213 UTC, + 15 s (mid-exposure) + 37 s (TAI - UTC) = + 0.00060185 d
    assert alert["mjd"] == pytest.approx(58451.2525232, abs=1e-7)
    # 10^((31.4 - 14.283453) / 2.5) = 10^6.8466188 = 7,024,555 nJy, negative; x 0.03873668 x ln(10) / 2.5 = 250,621
    assert alert["flux_njy"] == pytest.approx(-7_024_555, abs=1)
    assert alert["flux_err_njy"] == pytest.approx(250_621, abs=1)
    # reference 10^((31.4 - 12.049) / 2.5) = 10^7.7404 = 55,004,736; 55,004,736 - 7,024,555 = 47,980,181 -> 12.1973
    assert alert["total_flux_njy"] == pytest.approx(47_980_181, abs=30)
    assert alert["total_mag"] == pytest.approx(12.1973, abs=5e-5)
    # 55,004,736 x 0.011 x ln(10) / 2.5 = 557,275 (reference), and in quadrature with 250,621: 611,037
    assert alert["total_flux_err_no_reference_njy"] == alert["flux_err_njy"]
    assert alert["is_positive"] is False
    assert (alert["utc_date"], alert["band"], alert["reference"]) == (20181129, "g", 24800)


def test_the_alert_computed_by_hand() -> None:
    alert = one(packet())
    check_hand_computed(alert)
    assert alert["total_flux_err_njy"] == pytest.approx(611_037, abs=30)


def test_the_same_alert_in_the_public_night(alerts: pa.Table) -> None:
    check_hand_computed(alerts.filter(pc.equal(alerts["alert_id"], 697251920015010010)).to_pylist()[0])


def test_the_public_night(night: list[dict], alerts: pa.Table) -> None:
    raw = raw_table("ztf", night)
    assert alerts.num_rows == 498
    assert ZTF.faults(raw).null_count == 498
    assert set(ZTF.night_of(alerts).tolist()) == {20181129}
    assert {r["candidate"]["nid"] for r in night} == {697}
    assert not ZTF.night_disagreement(raw, alerts).any()
    assert pc.sum(alerts["is_good_quality"]).as_py() == 291
    assert alerts["is_good_quality"].null_count == 0
    assert alerts["solar_system_separation_arcsec"].null_count == 353
    assert alerts["solar_system_name"].null_count == 353
    assert pc.sum(alerts["is_solar_system"]).as_py() == 145
    assert alerts["reliability"].null_count == 0  # drb was not there yet: rb
    assert alerts["star_separation_arcsec"].null_count == 9
    assert alerts["gaia_mag"].null_count == 8
    assert pc.count_distinct(alerts["alert_id"]).as_py() == 498
    assert ZTF.processed_mjd(raw).null_count == 498


def test_each_epoch_counts_once_in_the_public_night(alerts: pa.Table) -> None:
    repeats = (alerts["n_light_curve"].to_numpy() - alerts["n_detections"].to_numpy()) > 0
    assert repeats.sum() == 4
    primary = lc.primary(alerts["light_curve"])
    assert lc.count(lc.offsets(primary)).tolist() == alerts["n_detections"].to_pylist()


def test_histories_of_the_public_night_mix_references(alerts: pa.Table) -> None:
    """Detections of one band on two references: in 31 histories, in 33 light curves (trigger included)."""
    with_trigger = without = 0
    for trigger, curve in zip(alerts["exposure"].to_pylist(), alerts["light_curve"].to_pylist(), strict=True):
        points = set(zip(curve["band"], curve["reference"], curve["exposure"], strict=True))
        history = {(band, reference) for band, reference, exposure in points if exposure != trigger}
        whole = {(band, reference) for band, reference, _ in points}
        without += len(history) > len({band for band, _ in history})
        with_trigger += len(whole) > len({band for band, _ in whole})
    assert (without, with_trigger) == (31, 33)


def test_real_packets_against_the_oracle(night: list[dict], versions: list[dict], alerts: pa.Table) -> None:
    assert_same(alerts, [ztf_alert(r) for r in night])
    raw = raw_table("ztf", versions)
    assert ZTF.faults(raw).null_count == len(versions) > 100
    found = ZTF.normalise(raw)
    assert_same(found, [ztf_alert(r) for r in versions])
    assert {r.get("schemavsn") for r in versions} == {None, "3.0", "3.1", "3.2", "3.3", "3.5", "4.01", "4.02"}


def test_packets_without_candid_at_the_top(versions: list[dict]) -> None:
    family = [r for r in versions if "candid" not in r]
    assert len(family) > 20
    ids = ZTF.alert_id(raw_table("ztf", family)).to_pylist()
    assert ids == [r["candidate"]["candid"] for r in family]


def test_forced_photometry_agrees_with_detections_of_the_same_exposure(versions: list[dict]) -> None:
    """Forced flux and detection of one exposure: median ratio within 5 % (fp_hists, zero point of the image)."""
    alerts = ZTF.normalise(raw_table("ztf", [r for r in versions if r.get("fp_hists")]))
    ratios = []
    for curve in alerts["light_curve"].to_pylist():
        points = list(zip(curve["exposure"], curve["band"], curve["is_forced"], curve["flux_njy"], strict=True))
        detected = {(e, b): f for e, b, forced, f in points if not forced}
        ratios += [f / detected[e, b] for e, b, forced, f in points if forced and (e, b) in detected]
    assert len(ratios) == 12
    assert np.median(ratios) == pytest.approx(1.0, abs=0.05)


def test_forced_points_that_are_no_measurement_are_counted(versions: list[dict]) -> None:
    raw = raw_table("ztf", versions)
    assert ZTF.forced_losses(raw) == {"failed status": 2}
    point = {"jd": 2458450.7, "fid": 1, "pid": 5, "magzpsci": 26.0, "forcediffimflux": 10.0, "procstatus": "0"}
    bad = [
        {**point, "procstatus": "61"},
        {**point, "procstatus": None},
        {**point, "forcediffimflux": -99999.0},
        {**point, "forcediffimflux": None},
        {**point, "forcediffimflux": float("nan")},
        {**point, "magzpsci": None},
        {**point, "jd": None},
        {**point, "fid": 9},
    ]
    record = packet(fp=[point, *bad, {**point, "forcediffimflux": -999.0}])
    alert = one(record)
    assert sum(alert["light_curve"]["is_forced"]) == 2
    losses = ZTF.forced_losses(raw_table("ztf", [record]))
    assert losses == {"failed status": 2, "no flux": 3, "no zero point": 1, "no time or band": 2}


def test_the_trigger_stands_in_the_light_curve_exactly_once() -> None:
    earlier = {"jd": 2458440.7, "fid": 1, "pid": 4, "candid": 44, "isdiffpos": "t", "magpsf": 18.0, "sigmapsf": 0.1}
    again = candidate()
    nameless = {**again, "candid": None}
    alert = one(packet(prv=[again, earlier, nameless, again]))
    assert alert["light_curve"]["exposure"] == [4, 697251920015]
    assert alert["n_detections"] == 2


def test_upper_limits_never_become_fluxes() -> None:
    limit = {"jd": 2458440.7, "fid": 2, "pid": 7, "diffmaglim": 20.5, "candid": None}
    alert = one(packet(prv=[limit, {**limit, "diffmaglim": None}, {**limit, "magpsf": float("nan")}]))
    assert alert["n_light_curve"] == 1
    assert alert["upper_limits"]["band"] == ["r", "r"]
    assert alert["upper_limits"]["flux_limit_njy"] == pytest.approx([10 ** ((31.4 - 20.5) / 2.5)] * 2)
    # MJD 58440.2 UTC, + 15 s + 37 s
    assert alert["upper_limits"]["mjd"] == pytest.approx([58440.2 + 52 / 86400] * 2, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"exptime": 0.0}, "exposure_time_sec", 30.0),
        ({"exptime": None}, "exposure_time_sec", 30.0),
        ({"exptime": 300.0}, "exposure_time_sec", 300.0),
        ({"exptime": 1e30}, "exposure_time_sec", 30.0),
        ({"exptime": 1e9}, "mjd", one(packet(exptime=30.0))["mjd"]),
        ({"isdiffpos": "1"}, "is_positive", True),
        ({"isdiffpos": "0"}, "is_positive", False),
        ({"isdiffpos": None}, "is_positive", None),
        ({"isdiffpos": None}, "flux_njy", None),
        ({"isdiffpos": None}, "total_flux_err_njy", None),
        ({"distnr": 1.51}, "total_flux_njy", None),
        ({"distnr": -999.0}, "total_mag", None),
        ({"magnr": 20.0}, "total_mag", None),
        ({"programid": 2}, "is_public", False),
        ({"programid": None}, "is_public", False),
        ({"rb": 0.5}, "is_good_quality", False),
        ({"nbad": 1}, "is_good_quality", False),
        ({"nbad": None}, "is_good_quality", None),
        ({"nbad": None, "rb": 0.5}, "is_good_quality", False),
        ({"rb": None}, "is_good_quality", None),
        ({"drb": 0.9, "drbversion": "d6_m7"}, "reliability", pytest.approx(0.9)),
        ({"drb": 0.0, "drbversion": ""}, "reliability", pytest.approx(0.61)),
        ({"ssdistnr": 3.0, "ssnamenr": "1234"}, "is_solar_system", True),
        ({"ssdistnr": 12.0, "ssnamenr": "1234"}, "is_solar_system", False),
        ({"ssdistnr": -999.0, "ssnamenr": "null"}, "solar_system_name", None),
        ({"field": None}, "reference", None),
        ({"jdstarthist": 2458451.7519213}, "first_mjd", pytest.approx(58451.2525232, abs=1e-7)),
        ({"jdstarthist": None}, "first_mjd_is_bound", True),
        ({"jdstarthist": 2458400.0}, "first_mjd_is_bound", False),
    ],
)
def test_one_rule_at_a_time(changes: dict, key: str, expected: object) -> None:
    assert one(packet(**changes))[key] == expected


def test_a_first_detection_is_that_of_the_trigger_for_any_exposure_time() -> None:
    alert = one(packet(exptime=300.0, jdstarthist=2458451.7519213))
    assert alert["first_mjd"] == alert["mjd"] == pytest.approx(58451.2519213 + 187 / 86400, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"candid": 0}, "candid"),
        ({"candid": None}, "candid"),
        ({"ra": None}, "position"),
        ({"dec": float("nan")}, "position"),
        ({"dec": 91.0}, "position"),
        ({"jd": float("inf")}, "jd"),
        ({"jd": 58451.25}, "jd"),
        ({"fid": 4}, "fid"),
        ({"fid": None}, "fid"),
    ],
)
def test_faults_name_the_field(changes: dict, fault: str) -> None:
    reason = ZTF.faults(raw_table("ztf", [packet(**changes)])).to_pylist()[0]
    assert fault in reason


def test_an_object_without_name_or_record_is_a_fault() -> None:
    raw = raw_table("ztf", [{**packet(), "objectId": name} for name in (None, "", "null")] + [{"objectId": "x"}])
    assert ZTF.faults(raw).null_count == 0


def test_a_night_number_that_disagrees_is_reported() -> None:
    raw = raw_table("ztf", [packet(nid=n) for n in (697, 698, None)])
    assert ZTF.night_disagreement(raw, ZTF.normalise(raw)).tolist() == [False, True, False]


def test_schema_versions_are_ordered() -> None:
    ordered = ["", "1.8", "3.0", "3.3", "3.5", "4.01", "4.02"]
    ranks = [ZTF.version_rank(version) for version in ordered]
    assert all(low < high for low, high in pairwise(ranks))


# --------------------------------------------------------------------------------------------- generated packets
def maybe(strategy: st.SearchStrategy, *sentinels: object) -> st.SearchStrategy:
    return st.one_of(strategy, st.sampled_from([None, *sentinels]))


NAN = float("nan")
JD = st.integers(0, 4000).map(lambda k: 2458000.5 + k / 8)
MAGS = maybe(st.floats(10, 24, width=32), NAN, -999.0)
SMALL = maybe(st.floats(0, 4, width=32), NAN, -999.0)
POINT = st.fixed_dictionaries(
    {},
    optional={
        "jd": maybe(JD, NAN, float("inf"), 0.0),
        "fid": maybe(st.integers(0, 4)),
        "pid": maybe(st.integers(0, 5)),
        "candid": maybe(st.integers(0, 5)),
        "isdiffpos": maybe(st.sampled_from(["t", "f", "1", "0", "x", ""])),
        "magpsf": MAGS,
        "sigmapsf": SMALL,
        "diffmaglim": MAGS,
        "magnr": MAGS,
        "sigmagnr": SMALL,
        "distnr": SMALL,
        "field": maybe(st.integers(-1, 900)),
        "rcid": maybe(st.integers(-1, 63)),
        "exptime": maybe(st.sampled_from([0.0, 30.0, 300.0]), NAN),
        "magzpsci": MAGS,
        "forcediffimflux": maybe(st.floats(-1000, 1000, width=32), NAN, -99999.0, -999.0),
        "forcediffimfluxunc": maybe(st.floats(-1, 50, width=32), NAN, -99999.0),
        "procstatus": maybe(st.sampled_from(["0", "61"])),
    },
)
POINTS = st.one_of(st.none(), st.lists(st.one_of(POINT, st.none()), max_size=6))
CANDIDATE = st.builds(
    lambda point, fixed, extra: {**point, **extra, **fixed},
    POINT,
    st.fixed_dictionaries(
        {
            "jd": JD,
            "fid": st.integers(1, 3),
            "candid": st.integers(1, 5),
            "ra": st.floats(0, 360, exclude_max=True),
            "dec": st.floats(-90, 90),
        }
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "rb": maybe(st.floats(0, 1, width=32), NAN),
            "drb": maybe(st.sampled_from([0.0, 0.5, 1.0]), NAN),
            "drbversion": maybe(st.sampled_from(["", "d6"])),
            "nbad": maybe(st.integers(0, 2)),
            "programid": maybe(st.integers(1, 3)),
            "ssdistnr": SMALL,
            "ssnamenr": maybe(st.sampled_from(["null", "", "1999 AB"])),
            "jdstarthist": maybe(JD, NAN),
            "sgscore1": SMALL,
            "maggaia": MAGS,
        },
    ),
)
RECORD = st.fixed_dictionaries(
    {"objectId": st.just("ZTF18aaaaaaa"), "candidate": CANDIDATE, "prv_candidates": POINTS, "fp_hists": POINTS},
    optional={"candid": maybe(st.integers(0, 5))},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=4))
def test_generated_packets_against_the_oracle(records: list[dict]) -> None:
    raw = raw_table("ztf", records)
    assert ZTF.faults(raw).null_count == len(records)
    assert_same(ZTF.normalise(raw), [ztf_alert(r) for r in raw.to_pylist()])
