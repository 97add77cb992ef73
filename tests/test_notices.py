"""Notices: every real sample against what it says, both forms of one alert, and what is refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CatalogError
from pipeline.skymap import parse_skymap
from pipeline.skymap.notices import STREAMS, ErrorCircle, Event, parse_notice, parse_notices
from pipeline.skymap.notices import parse as parsing
from pipeline.skymap.notices.avro import ALERT_SCHEMA
from pipeline.skymap.notices.event import event_from_dict, tai_mjd

# ------------------------------------------------------------------------------------------- made by hand
ALERT: dict[str, Any] = {
    "alert_type": "PRELIMINARY",
    "time_created": "2023-05-18T13:00:00Z",
    "superevent_id": "S230518h",
    "urls": {"gracedb": "https://example.org"},
    "event": {
        "time": "2023-05-18T12:59:08.167Z",
        "far": 3e-10,
        "significant": True,
        "instruments": ["H1"],
        "group": "CBC",
        "pipeline": "pycbc",
        "search": "AllSky",
        "properties": {"HasNS": 1.0},
        "classification": {"NSBH": 0.9, "Terrestrial": 0.1},
        "duration": None,
        "central_frequency": None,
        "skymap": base64.b64encode(b"any bytes").decode(),
    },
    "external_coinc": None,
}


def alert(**changes: Any) -> dict[str, Any]:
    event = changes.pop("event", {})
    return {**ALERT, **changes, "event": None if event is None else {**ALERT["event"], **event}}


def as_json(item: Any) -> bytes:
    return json.dumps(item).encode()


def avro_record(item: dict[str, Any]) -> dict[str, Any]:
    record = json.loads(json.dumps(item))
    if record["event"] is not None:
        record["event"]["mchirp_source"] = None
        record["event"]["skymap"] = base64.b64decode(record["event"]["skymap"])
    if record["external_coinc"] is not None:
        record["external_coinc"]["combined_skymap"] = base64.b64decode(record["external_coinc"]["combined_skymap"])
    return record


def container(*items: dict[str, Any], codec: str = "deflate") -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(ALERT_SCHEMA), [avro_record(item) for item in items], codec=codec)
    return sink.getvalue()


def message(item: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(ALERT_SCHEMA), avro_record(item))
    return b"\x00" + (17).to_bytes(4, "big") + sink.getvalue()


def voevent(
    ivorn: str = "nasa.gsfc.gcn/Fermi#GBM_Gnd_Pos_x",
    params: dict[str, str] | None = None,
    *,
    radius: str = "5.0",
    role: str = "observation",
    head: str = "",
    date: str = "2022-08-07T06:53:53",
    time: str = "2022-08-07T06:53:05.16",
    place: tuple[str, str] = ("151.95", "7.66"),
) -> bytes:
    told = "".join(f'<Param name="{name}" value="{value}"/>' for name, value in (params or {"TrigID": "1"}).items())
    position = (
        f"<Position2D><Value2><C1>{place[0]}</C1><C2>{place[1]}</C2></Value2>"
        f"<Error2Radius>{radius}</Error2Radius></Position2D>"
    )
    return (
        f'<?xml version="1.0"?>{head}<voe:VOEvent ivorn="ivo://{ivorn}" role="{role}" xmlns:voe="v">'
        f"<Who><Date>{date}</Date></Who><What>{told}</What><WhereWhen><AstroCoords><Time><TimeInstant>"
        f"<ISOTime>{time}</ISOTime></TimeInstant></Time>{position}</AstroCoords></WhereWhen></voe:VOEvent>"
    ).encode()


# ------------------------------------------------------------------------------------------- real notices
TJD_ZERO_MJD = 40000
REAL = {
    "fermi/voevent_number=193.xml": ("gbm680782656", "fermi-gbm", "update", (316.69, -4.1699, 11.34, 0.68, 2.77)),
    "fermi/voevent_number=699.xml": (
        "gbm680977982",
        "fermi-gbm",
        "preliminary",
        (220.8667, 68.5833, 16.85, 0.68, 4.05),
    ),
    "fermi/voevent_number=2750.xml": ("gbm681547990", "fermi-gbm", "initial", (151.95, 7.66, 13.05, 0.68, 4.05)),
    "fermi/voevent_number=2842.xml": ("lat1659883590", "fermi-lat", "initial", None),
    "icecube/voevent_number=3028.xml": (
        "icecube136918_45252263",
        "icecube-bronze",
        "initial",
        (132.3328, -42.7168, 0.6521, 0.9, 0.0),
    ),
    "icecube/voevent_number=45412.xml": (
        "icecube137467_64735045",
        "icecube-gold",
        "initial",
        (350.5486, 34.711, 0.6596, 0.9, 0.0),
    ),
    "icecube/voevent_number=825.xml": (
        "icecube136889_25590129",
        "icecube-cascade",
        "initial",
        (150.1126, -9.1693, 12.8963, 0.9, 0.0),
    ),
    "integral/voevent_number=18790.xml": (
        "integral10042",
        "integral",
        "initial",
        (273.965, -37.2473, 0.0489, 0.9, 0.0),
    ),
    "integral/voevent_number=18791.xml": (
        "integral10042",
        "integral",
        "update",
        (273.9546, -37.2428, 0.0431, 0.9, 0.0),
    ),
    "integral/voevent_number=737.xml": ("integral9998", "integral", "preliminary", (72.92, 4.4995, 0.0656, 0.9, 0.0)),
    "swift/voevent_number=17834.xml": ("swift1125106", "swift-bat", "update", (135.7205, -40.707, 0.05, 0.9, 0.0)),
    "swift/voevent_number=391.xml": ("swift1118357", "swift-bat", "preliminary", (225.0208, -69.4969, 0.05, 0.9, 0.0)),
    "swift/voevent_number=392.xml": ("swift1118357", "swift-bat", "initial", (225.0208, -69.4969, 0.05, 0.9, 0.0)),
    "swift/voevent_number=393.xml": ("swift1118357", "swift-other", "update", None),
    "swift/voevent_number=405.xml": ("swift1118357", "swift-bat", "update", None),
    "swift/voevent_number=4554.xml": ("swift1120270", "swift-xrt", "update", (81.5292, -33.0162, 0.0016, 0.9, 0.0)),
    "swift/voevent_number=8582.xml": ("swift1121751", "swift-uvot", "update", (206.4104, -44.0386, 0.0001, 0.9, 0.0)),
}


@pytest.mark.parametrize("file", REAL)
def test_a_real_voevent_is_what_it_says(file: str, shared_data: Path) -> None:
    data = (shared_data / f"skymaps/gcn_notices/{file}").read_bytes()
    event = parse_notice(data, file)
    name, stream, status, circle = REAL[file]
    assert (event.name, event.stream, event.status) == (name, stream, status)
    assert event.circle == (None if circle is None else ErrorCircle(*circle))
    assert not event.is_test and event.skymap_fits is None
    assert event.time_is_trigger == (stream not in ("swift-xrt", "swift-uvot", "swift-other"))
    # the time, from the truncated Julian day and second of day that the packet gives beside the ISO time
    params = dict(_params(data))
    day = next(float(params[key]) for key in ("Burst_TJD", "Trans_TJD", "Event_TJD", "Obs_TJD") if key in params)
    second = next(float(params[key]) for key in ("Burst_SOD", "Trans_SOD", "Event_SOD", "Obs_SOD") if key in params)
    expected = Time(TJD_ZERO_MJD + day, second / 86400, format="mjd", scale="utc").tai.mjd
    tolerance_sec = 6 if (status == "update" and stream == "swift-bat") or stream == "swift-other" else 0.02
    assert event.time_mjd == pytest.approx(expected, abs=tolerance_sec / 86400)


def _params(data: bytes) -> list[tuple[str, str]]:
    import re

    return re.findall(r'<Param name="(\w+)"\s+value="([^"]*)"', data.decode())


def test_gcn_forms_of_lvk_alerts_are_read(shared_data: Path) -> None:
    folder = shared_data / "skymaps/gcn_notices"
    event = parse_notice((folder / "voevent/example_voevent.xml").read_bytes())
    assert (event.name, event.kind, event.stream, event.status, event.version) == (
        "s200302c",
        "gw",
        "lvk",
        "preliminary",
        1,
    )
    assert event.far_hz == 9.349090689402942e-09
    assert event.classification["BBH"] == 0.8895532192171397 and event.classification["HasRemnant"] == 0.0
    assert event.skymap_url == "https://gracedb.ligo.org/api/superevents/S200302c/files/bayestar.fits.gz,0"
    assert not event.is_localised
    assert event.time_mjd == pytest.approx(Time("2020-03-02T01:58:11.519119", scale="utc").tai.mjd, abs=1e-11)
    initial, update, test = (
        parse_notice((folder / f"lvk/{name}.txt.gz").read_bytes()) for name in ("initial", "update", "test")
    )
    assert [initial.status, update.status, test.is_test, initial.is_test] == ["initial", "update", True, False]
    assert initial.order < update.order and initial.digest != update.digest
    assert initial.skymap_fits is not None
    assert parse_skymap(initial.skymap_fits, initial.name).has_distance


def test_lvk_samples_are_the_same_in_json_and_in_avro(shared_data: Path) -> None:
    folder = shared_data / "skymaps/lvk_alert_json"
    seen = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        text = gzip.decompress(data) if file.suffix == ".gz" else data
        event = parse_notice(data, file.name)
        for form in (container(json.loads(text)), container(json.loads(text), codec="null"), message(json.loads(text))):
            assert parse_notice(form, "avro").digest == event.digest
        assert event.is_test and event.name == "ms181101ab"
        seen.append((event.order, event.status, event.external is not None))
        if event.external is not None:
            assert (event.external.observatory, event.external.time_difference_sec) == ("Fermi", 2.02)
            assert event.external.skymap_fits is not None
            assert parse_skymap(event.external.skymap_fits, "x").has_distance
    assert [item[1:] for item in sorted(seen)] == [
        ("earlywarning", False),
        ("preliminary", False),
        ("initial", False),
        ("update", False),
        ("update", True),
        ("retraction", False),
    ]


# ------------------------------------------------------------------------------------------- the rules
def test_times_are_converted_once_and_leap_seconds_are_times() -> None:
    for text in ("2017-08-17T12:41:04.4", "1999-01-01 00:00:00", "2016-12-31T12:00:00.5Z", "2023-05-18T12:59:08.167Z"):
        expected = Time(text.removesuffix("Z"), scale="utc").tai.mjd
        assert tai_mjd(text, "time", "s") == pytest.approx(expected, abs=1e-11)
    leap = tai_mjd("2016-12-31T23:59:60.5Z", "time", "s")
    assert leap == pytest.approx(Time("2016-12-31T23:59:60.5", scale="utc").tai.mjd, abs=1e-11)
    after = tai_mjd("2017-01-01T00:00:00Z", "time", "s")
    assert (after - leap) * 86400 == pytest.approx(0.5, abs=1e-5)
    for bad in ("2023-05-18T12:59:08+02:00", "2023-02-30T00:00:00Z", "now", "", "1950-01-01T00:00:00", None, 5):
        with pytest.raises(CatalogError):
            tai_mjd(bad, "time", "s")  # type: ignore[arg-type]


def test_a_list_a_line_each_or_a_container_of_several() -> None:
    one, two = alert(), alert(alert_type="UPDATE")
    for data in (
        as_json([one, two]),
        as_json(one) + b"\n" + as_json(two),
        container(one, two),
        as_json([[one, two]][0]),
    ):
        assert [item.status for item in parse_notices(data)] == ["preliminary", "update"]
        with pytest.raises(CatalogError, match="2 notices"):
            parse_notice(data)
    with pytest.raises(CatalogError, match="no notice"):
        parse_notices(container())


@pytest.mark.parametrize(
    ("data", "is_test"),
    [
        (as_json(alert()), False),
        (as_json(alert(superevent_id="MS230518h")), True),
        (as_json(alert(superevent_id="TS230518h")), True),
        (as_json(alert(event={"search": "MDC"})), True),
        (voevent(), False),
        (voevent(role="test"), True),
        (voevent(params={"TrigID": "1", "Test_Submission": "true"}), True),
        (voevent(params={"TrigID": "1", "Test_Submission": "false"}), False),
        (voevent("nasa.gsfc.gcn/INTEGRAL#Weak_x", {"TrigID": "1", "Test_Notice": "true"}), True),
        (voevent("gwnet/LVC#S1", {"GraceID": "S230518h", "AlertType": "Initial", "HardwareInj": "1"}), True),
        (voevent("gwnet/LVC#S1", {"GraceID": "MS230518h", "AlertType": "Initial"}), True),
        (voevent("gwnet/LVC#S1", {"GraceID": "S230518h", "AlertType": "Initial", "HardwareInj": "0"}), False),
    ],
)
def test_tests_are_told(data: bytes, is_test: bool) -> None:
    assert parse_notice(data).is_test == is_test


def test_status_and_version_of_voevents() -> None:
    def told(ivorn: str, **params: str) -> tuple[str, int]:
        event = parse_notice(voevent(ivorn, params))
        return event.status, event.version

    icecube = {"run_id": "1", "event_id": "2"}
    assert told("nasa.gsfc.gcn/AMON#ICECUBE_GOLD_x", **icecube, Rev="0") == ("initial", 1)
    assert told("nasa.gsfc.gcn/AMON#ICECUBE_GOLD_x", **icecube, Rev="1") == ("update", 2)
    assert told("nasa.gsfc.gcn/AMON#ICECUBE_GOLD_x", **icecube, Rev="1", Retraction="true") == ("retraction", 2)
    assert told("nasa.gsfc.gcn/SWIFT#BAT_GRB_Pos_x", TrigID="1", Def_NOT_a_GRB="true")[0] == "retraction"
    assert told("nasa.gsfc.gcn/Fermi#GBM_Alert_x", TrigID="1")[0] == "earlywarning"
    assert told("gwnet/LVC#x", GraceID="S1a", AlertType="Update", Pkt_Ser_Num="3") == ("update", 3)
    assert told("gwnet/LVC#x", GraceID="S1a", AlertType="EarlyWarning") == ("earlywarning", 1)
    assert told("elsewhere/Any#thing", x="1") == ("initial", 1)


def test_final_positions_of_gbm_before_2019_have_the_larger_systematic() -> None:
    def systematic(date: str) -> float:
        circle = parse_notice(voevent("nasa.gsfc.gcn/Fermi#GBM_Fin_Pos_x", date=date)).circle
        assert circle is not None
        return circle.systematic_deg

    assert systematic("2019-09-10T23:59:59") == 4.05
    assert systematic("2019-09-11T00:00:00") == 2.77


def test_every_stream_says_where_its_containment_is_from() -> None:
    assert len({item.name for item in STREAMS}) >= 9
    for item in STREAMS:
        assert 0 < item.containment < 1 and item.systematic_deg >= 0 and len(item.source) > 10


@pytest.mark.parametrize(
    ("mixture", "radius_deg"), [(((0.9, 3.7), (0.1, 14.0)), 4.05), (((0.52, 1.8), (0.48, 4.1)), 2.77)]
)
def test_the_one_radius_of_a_mixture_holds_as_much(mixture: tuple[tuple[float, float], ...], radius_deg: float) -> None:
    held = sum(share * (1 - 0.32 ** ((radius_deg / sigma) ** 2)) for share, sigma in mixture)
    assert held == pytest.approx(0.68, abs=0.001)


def test_an_event_goes_through_json_and_comes_back() -> None:
    event = parse_notice(as_json(alert()))
    assert event.skymap_fits is not None
    told = json.loads(json.dumps(event.as_dict()))
    back = event_from_dict(told, {told["skymap_sha256"]: event.skymap_fits})
    assert back == event and back.digest == event.digest
    assert replace(event, version=7).digest == event.digest != replace(event, far_hz=1.0).digest
    circle = parse_notice(voevent())
    assert event_from_dict(json.loads(json.dumps(circle.as_dict())), {}) == circle


# ------------------------------------------------------------------------------------------- what is refused
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


def _of_system(name: str) -> bytes:
    return voevent().replace(b"<AstroCoords>", f'<AstroCoords coord_system_id="{name}">'.encode())


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no notice"),
    "text": (b"TITLE: GCN/FERMI NOTICE", "no notice"),
    "cut json": (as_json(alert())[:-3], "no JSON"),
    "other json": (b'{"a": 1}', "no LVK alert"),
    "name is null": (as_json({**ALERT, "superevent_id": None}), "superevent_id"),
    "no list of alerts": (b"[1, 2]", "no LVK alert"),
    "NaN": (as_json(alert(event={"far": float("nan")})), "NaN is no number"),
    "huge number": (as_json(alert()).replace(b"3e-10", b"1e999"), "no number"),
    "deep": (b"[" * 100_000, "no JSON"),
    "no text": (b'{"a": "\xff"}', "UTF-8"),
    "alert type": (as_json(alert(alert_type="RUMOUR")), "RUMOUR"),
    "no event": (as_json(alert(event=None)), "has no event"),
    "no time": (as_json(alert(event={"time": None})), "event.time"),
    "no time created": (as_json({**ALERT, "time_created": "soon"}), "time_created"),
    "bad base64": (as_json(alert(event={"skymap": "a*"})), "base64"),
    "map is a number": (as_json(alert(event={"skymap": 3})), "no sky map"),
    "no name": (as_json(alert(superevent_id="///")), "cannot name"),
    "long name": (as_json(alert(superevent_id="S" * 500)), "cannot name"),
    "event is a text": (as_json({**ALERT, "event": "x"}), "no object"),
    "classification is a list": (as_json(alert(event={"classification": [1]})), "no object"),
    "cut gzip": (gzip.compress(as_json(alert()))[:-9], "inflated"),
    "cut container": (container(alert())[:-5], "damaged"),
    "cut header": (container(alert())[:40], "no whole Avro"),
    "foreign message": (b"\x00\x00\x00\x00\x01" + b"\x99" * 50, "igwn.alerts"),
    "no xml": (b"<VOEvent", "no XML"),
    "other xml": (b"<html/>", "no VOEvent"),
    "entities": (voevent(head=LAUGHS), "document type or entities"),
    "external entity": (voevent(head='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "document type or entities"),
    "undeclared entity": (voevent(time="&xxe;"), "no XML"),
    "nested": (b"<VOEvent>" + b"<a>" * 100 + b"</a>" * 100 + b"</VOEvent>", "nested"),
    "encoding": (b'<?xml version="1.0" encoding="nonsense"?><a/>', "no XML"),
    "barycentric time": (_of_system("TDB-ICRS-BARY"), "TDB-ICRS-BARY"),
    "equinox of 1950": (_of_system("UTC-FK4-TOPO"), "UTC-FK4-TOPO"),
    "galactic": (_of_system("UTC-GAL-GEO"), "not in UTC"),
    "radians": (voevent().replace(b"<Position2D", b'<Position2D unit="rad"'), "degrees"),
    "role": (voevent(role="utility"), "role"),
    "no trigger": (voevent(params={"x": "1"}), "names no trigger"),
    "off the sky": (voevent(place=("400", "7")), "off the sky"),
    "declination": (voevent(place=("10", "-95")), "off the sky"),
    "radius": (voevent(radius="-3"), "off the sky"),
    "no number": (voevent(radius="wide"), "Error2Radius"),
    "voevent without a time": (voevent(time="yesterday"), "ISOTime"),
    "lvc without a type": (voevent("gwnet/LVC#x", {"GraceID": "S1a"}), "AlertType"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_notice_gives_one_clear_line(case: str) -> None:
    data, words = BAD[case]
    with pytest.raises(CatalogError) as caught:
        parse_notice(data, "the notice.x")
    line = str(caught.value)
    assert words in line and "the notice.x" in line and "\n" not in line and len(line) < 400


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_BYTES", 1 << 20)
    bomb = gzip.compress(b" " * (8 << 20))
    for data in (bomb, b" " * ((1 << 20) + 1)):
        with pytest.raises(CatalogError, match="more than 1 MB"):
            parse_notice(data)
    monkeypatch.undo()
    with pytest.raises(CatalogError, match="more than 4 MB"):
        parse_notice(voevent(params={"x": "y" * (5 << 20)})[: 5 << 20])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_gives_anything_but_an_event_or_a_catalog_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([as_json(alert()), container(alert()), message(alert()), voevent()]))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        events = parse_notices(bytes(damaged[:cut] if cut % 3 == 0 else damaged))
    except CatalogError:
        return
    assert all(isinstance(item, Event) for item in events)
