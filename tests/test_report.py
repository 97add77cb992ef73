"""The report of a night: ranking, light curves, stamps, and the page as a whole."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy import units as u
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as images
from synthetic_archive import FIRST_ID, alerts_table, science_table, stamp, write_archive, write_night

import pipeline
from pipeline import luminosity
from pipeline.cli.report import command
from pipeline.errors import InputError
from pipeline.report import axes, curves, night, palette, ranking, stamps, write_report

AT_40_MPC = curves.Source(40.0, luminosity.ZTF)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_archive(path, {20181129: [40, 30], 20181202: []})
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_report(folder, "ztf", 20181129)


@pytest.fixture
def science() -> pa.Table:
    rng = np.random.default_rng(3)
    return science_table(alerts_table(rng, 50, first_id=FIRST_ID), rng)


def replaced(table: pa.Table, name: str, values: object) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = table.schema.field(name).with_nullable(True)
    return table.set_column(place, field, pa.array(values, field.type))


# -------------------------------------------------------------------------------------------- ranking
def test_the_kilonova_in_the_sky_map_is_first(science: pa.Table) -> None:
    ranked = ranking.rank(science)
    assert len(ranked) == 10
    assert ranked[0].row == 3
    assert "passes kilonova" in ranked[0].reasons
    assert "inside the 10 % region of s1" in ranked[0].reasons


def test_ranking_follows_the_rule(science: pa.Table) -> None:
    ranked = [item.row for item in ranking.rank(science, 50)][1:]
    keys = []
    for row in ranked:
        alert = science.slice(row, 1).to_pylist()[0]
        passed = sum(value for name, value in alert.items() if name.startswith("filter_"))
        score = -1 if alert["clf_demo_score"] is None else alert["clf_demo_score"]
        keys.append((alert["is_solar_system"], -passed, -score, -abs(alert["flux_njy"]), alert["alert_id"]))
    assert keys == sorted(keys)


def test_ranking_does_not_depend_on_the_order_of_rows(science: pa.Table) -> None:
    mixed = np.random.default_rng(0).permutation(50)
    ids = science["alert_id"].to_numpy()
    shuffled = science.take(mixed)
    direct = [ids[item.row] for item in ranking.rank(science)]
    assert [ids[mixed[item.row]] for item in ranking.rank(shuffled)] == direct


def test_injected_hidden_and_repeated_alerts_are_left_out(science: pa.Table) -> None:
    injected = replaced(science, "is_injected", np.arange(50) == 3)
    assert 3 not in [item.row for item in ranking.rank(injected, 50)]
    hidden = replaced(science, "is_public", np.arange(50) != 3)
    assert 3 not in [item.row for item in ranking.rank(hidden, 50)]
    same = replaced(science, "object_key", ["one"] * 50)
    assert [item.row for item in ranking.rank(same)] == [3]
    assert ranking.rank(science.slice(0, 0)) == []


def test_members_of_a_streak_come_last(science: pa.Table) -> None:
    first = ranking.rank(science)[0]
    streak = [science["alert_id"][first.row].as_py()]
    ranked = ranking.rank(science, 50, on_streak=streak, events=["S1"])
    assert ranked[-1].row == first.row == 3
    assert "inside the 10 % region of S1" in ranked[-1].reasons


def test_ranking_needs_no_enrichment(science: pa.Table) -> None:
    plain = science.select([name for name in science.column_names if not name.startswith(("clf_", "filter_", "sky"))])
    ranked = ranking.rank(plain, 50)
    flux = [
        abs(plain["flux_njy"][item.row].as_py()) for item in ranked if not plain["is_solar_system"][item.row].as_py()
    ]
    assert flux == sorted(flux, reverse=True)
    assert ranked[0].reasons == ()


# --------------------------------------------------------------------------------------- light curves
def points() -> curves.Points:
    alerts = alerts_table(np.random.default_rng(5), 1, first_id=FIRST_ID).combine_chunks()
    nested = [alerts[name].chunk(0) for name in ("light_curve", "upper_limits")]
    return curves.points_of(nested[0], nested[1], alerts["mjd"][0].as_py())


def test_points_count_each_exposure_once() -> None:
    alerts = alerts_table(np.random.default_rng(5), 1, first_id=FIRST_ID)
    curve = alerts["light_curve"][0].as_py()
    # a forced point at the trigger's own exposure
    for name, values in curve.items():
        extra = {"is_forced": True, "exposure": 14, "band": curve["band"][-1]}.get(name, values[-1])
        values.append(extra)
    nested = pa.array([curve], alerts["light_curve"].type)
    got = curves.points_of(nested, alerts["upper_limits"].combine_chunks(), alerts["mjd"][0].as_py())
    assert got.kind == ["forced", "forced", "detection", "detection", "detection", "limit", "limit"]
    np.testing.assert_allclose(got.days, [-8, -6, -4, -2, 0, -12, -9], atol=1e-9)


def test_a_limit_gives_way_to_forced_photometry_of_its_exposure() -> None:
    alerts = alerts_table(np.random.default_rng(5), 1, first_id=FIRST_ID)
    limits = alerts["upper_limits"][0].as_py()
    limits["exposure"][1], limits["band"][1] = 11, alerts["light_curve"][0].as_py()["band"][1]
    nested = pa.array([limits], alerts["upper_limits"].type)
    got = curves.points_of(alerts["light_curve"].combine_chunks(), nested, alerts["mjd"][0].as_py())
    assert got.kind == ["forced", "forced", "detection", "detection", "detection", "limit"]


def test_every_drawing_is_well_formed_and_says_what_it_shows() -> None:
    drawn = curves.drawings(points(), AT_40_MPC, label='<b>&"x"')
    assert [drawing.key for drawing in drawn] == ["mag", "flux", "luminosity"]
    for drawing, unit in zip(drawn, ["(AB mag)", "Jy)", "erg s⁻¹)"], strict=True):
        root = ElementTree.fromstring(drawing.svg)
        assert '<b>&"x"' in root.attrib["aria-label"]
        texts = [element.text for element in root.iter("text")]
        assert any(unit in str(text) for text in texts)
        assert "days from this alert (TAI)" in texts
        assert "3 detections, " in root.attrib["aria-label"]


def test_marks_stand_where_the_numbers_say() -> None:
    only = curves.Points(
        np.array([-4.0, 0.0]), np.array([3631.0, 36310.0]), np.array([100.0, 100.0]), ["g", "g"], ["detection"] * 2
    )
    svg = curves.drawings(only, None, label="x")[0].svg
    root = ElementTree.fromstring(svg)
    (marks,) = [path for path in root.iter("path") if path.attrib.get("fill") == palette.style("g").colour]
    x, y = zip(*((float(a), float(b)) for a, b in re.findall(r"M([\d.]+) ([\d.]+)m", marks.attrib["d"])), strict=True)
    ticks = {t.text: float(t.attrib["y"]) - 4 for t in root.iter("text") if "end" in t.attrib.get("text-anchor", "")}
    names = sorted(ticks, key=float)
    per_mag = (ticks[names[-1]] - ticks[names[0]]) / (float(names[-1]) - float(names[0]))
    assert x[0] < x[1]
    assert y[0] - y[1] == pytest.approx(2.5 * per_mag, abs=0.2)  # ten times fainter, lower on the screen
    zero = [float(t.attrib["x"]) for t in root.iter("text") if t.text == "0"]
    assert x[1] == pytest.approx(zero[0], abs=0.2)


def test_luminosity_equals_astropy() -> None:
    flux, distance = 1000.0, 57.25
    frequency = (622.3 * u.nm).to(u.Hz, u.spectral())
    expected = (4 * np.pi * (distance * u.Mpc) ** 2 * frequency * flux * u.nJy).to_value("erg/s")
    one = curves.Points(np.array([0.0]), np.array([flux]), np.array([10.0]), ["r"], ["detection"])
    svg = ElementTree.fromstring(curves.drawings(one, curves.Source(distance, luminosity.LSST), label="x")[2].svg)
    (mark,) = [path for path in svg.iter("path") if path.attrib.get("fill") == palette.style("r").colour]
    corners = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", mark.attrib["d"])]
    y = (min(corners) + max(corners)) / 2
    ticks = {
        float(str(t.text).replace(axes.MINUS, "-")): float(t.attrib["y"]) - 4
        for t in svg.iter("text")
        if t.attrib["text-anchor"] == "end" and t.text != "uncorrected for extinction"
    }
    assert "uncorrected for extinction" in svg.attrib["aria-label"]
    low, high = min(ticks), max(ticks)
    value = low + (y - ticks[low]) / (ticks[high] - ticks[low]) * (high - low)
    exponent = int(np.floor(np.log10(expected)))
    assert f"({axes.power_of_ten(exponent)} erg s⁻¹)" in "".join(str(t.text) for t in svg.iter("text"))
    assert value == pytest.approx(expected / 10**exponent, rel=0.01)


def test_without_a_distance_luminosity_says_why() -> None:
    for source in (None, curves.Source(0.0, luminosity.ZTF), curves.Source(float("nan"), luminosity.ZTF)):
        drawing = curves.drawings(points(), source, label="x")[2]
        assert drawing.svg == ""
        assert drawing.missing == "needs the distance of a matched galaxy"


def test_insignificant_forced_points_become_limits() -> None:
    faint = curves.Points(np.array([0.0]), np.array([-10.0]), np.array([10.0]), ["r"], ["forced"])
    mag, flux, _ = curves.drawings(faint, None, label="x")
    assert "0 forced points and 1 upper limits" in mag.svg
    assert "1 forced points and 0 upper limits" in flux.svg


def test_an_empty_light_curve_has_no_drawing() -> None:
    nothing = curves.Points(np.zeros(0), np.zeros(0), np.zeros(0), [], [])
    assert [drawing.missing for drawing in curves.drawings(nothing, AT_40_MPC, label="x")] == [
        "the light curve is empty"
    ] * 3


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_and_within(low: float, width: float, about: int) -> None:
    high = low + width
    ticks = axes.round_ticks(low, high, about)
    assert ticks == sorted(set(ticks))
    assert all(low - 1e-6 * width - 1e-9 <= tick <= high + 1e-6 * width + 1e-9 for tick in ticks)
    assert len(ticks) <= about + 2
    assert len({axes.tick_text(tick, ticks) for tick in ticks}) == len(ticks)


# --------------------------------------------------------------------------------------------- stamps
def test_a_stamp_without_orientation_has_its_first_row_on_top(tmp_path: Path) -> None:
    made = stamps.stamp_of({"fileName": "x", "stampData": stamp(1)})
    assert made.fault is None and made.north is None and made.side_arcsec is None
    (tmp_path / "s.png").write_bytes(made.png)
    pixels = images.imread(tmp_path / "s.png")[..., 0]
    assert pixels.shape == (63, 63)
    assert pixels[31, 31] == 1.0
    assert pixels[46, 31] > 0.9 > pixels[16, 31]  # the second source is at row + 15


def test_a_stamp_with_coordinates_keeps_fits_order_and_has_a_compass(tmp_path: Path) -> None:
    made = stamps.stamp_of(stamp(1, wcs=True, packed=False))
    (tmp_path / "s.png").write_bytes(made.png)
    pixels = images.imread(tmp_path / "s.png")[..., 0]
    assert pixels[16, 31] > 0.9 > pixels[46, 31]
    assert made.north == pytest.approx((0, -1))  # up on the screen
    assert made.east == pytest.approx((1, 0))  # CD1_1 > 0: a mirrored stamp
    assert made.side_arcsec == pytest.approx(63 * 2.8e-4 * 3600)


@pytest.mark.parametrize("value", [None, b"", {"fileName": "x", "stampData": None}])
def test_a_stamp_that_is_not_there(value: object) -> None:
    assert stamps.stamp_of(value).fault == "not shipped"


@pytest.mark.parametrize("value", [b"junk", stamp(1)[:500], b"\x1f\x8b" + bytes(40), stamp(1, packed=False)[:3000]])
def test_a_damaged_stamp_says_so(value: bytes) -> None:
    made = stamps.stamp_of(value)
    assert made.png == b""
    assert str(made.fault).startswith("cannot be read")


def test_flat_and_empty_stamps() -> None:
    from astropy.io import fits

    def encoded(image: np.ndarray) -> bytes:
        import io

        buffer = io.BytesIO()
        fits.PrimaryHDU(image.astype(np.float32)).writeto(buffer)
        return buffer.getvalue()

    assert stamps.stamp_of(encoded(np.ones((5, 5)))).png
    assert stamps.stamp_of(encoded(np.full((5, 5), np.nan))).fault == "holds no finite pixel"


def test_real_stamps_can_be_shown(shared_data: Path) -> None:
    import fastavro

    shown = 0
    for path in sorted((shared_data / "alerts" / "ztf").glob("object_*/*.avro"))[:3]:
        with path.open("rb") as file:
            packet = next(iter(fastavro.reader(file)))
        for kind in ("Science", "Template", "Difference"):
            made = stamps.stamp_of(packet[f"cutout{kind}"])
            assert made.png.startswith(b"\x89PNG"), made.fault
            shown += 1
    assert shown >= 3


# ------------------------------------------------------------------------------------------ the colours
def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_contrast_is_enough() -> None:
    for band in "ugrizy":
        assert 1.05 / (_luminance(palette.style(band).colour) + 0.05) >= 4.5
    assert len({palette.style(band).mark for band in "ugrizy"}) == 6
    for colour in (palette.INK, palette.FAINT, palette.ACCENT):
        assert 1.05 / (_luminance(colour) + 0.05) >= 4.5


# ------------------------------------------------------------------------------------------- the page
class _Page(HTMLParser):
    """Collects what a browser would load, the ids, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if name in given and not str(given[name]).startswith("#"):
                self.loaded.append(str(given[name]))
        self.targets += [str(given["href"])[1:]] if tag == "a" else []
        self.ids += [str(given["id"])] if "id" in given else []
        self.images += [given] if tag == "img" else []
        if tag not in ("meta", "img", "br", "path", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def parsed(path: Path) -> _Page:
    reader = _Page()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_the_page_is_complete_in_itself(page: Path) -> None:
    got = parsed(page)
    assert got.open == []
    assert got.loaded and all(url.startswith("data:image/png;base64,") for url in got.loaded)
    text = page.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    assert len(set(got.ids)) == len(got.ids)
    assert set(got.targets) <= set(got.ids)
    assert all(image.get("alt") for image in got.images)


def test_the_page_says_what_the_ledger_says(page: Path) -> None:
    got = parsed(page)
    for told in ("29 November 2018", "Balanced", "dump_20181129.tar.gz", "undecodable", "123.5 kB", "decode"):
        assert told in got.text
    assert "The 10 most interesting alerts" in got.text
    assert got.text.count("Galactic") == 0  # drawn, not written
    assert "streaks s1: 5 alerts, score 0.90" in re.sub(r"\s+", " ", got.text)
    assert "difference magnitude (AB mag)" in got.text
    assert "erg s⁻¹" in got.text
    assert "no match" in got.text
    assert "none consulted" not in got.text


def test_figures_stand_beside_the_page(page: Path) -> None:
    names = {path.name for path in page.parent.iterdir()}
    assert {
        "index.html",
        "sky.png",
        "sky-zoom.png",
        "magnitudes.png",
        "scores.png",
        "link-1.png",
        "alert-1-science.png",
    } <= names
    for path in page.parent.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
        assert b"tIME" not in path.read_bytes()


def test_the_same_night_gives_the_same_bytes(folder: Path, page: Path, tmp_path: Path) -> None:
    again = write_report(folder, "ztf", "2018-11-29", tmp_path / "again")
    assert again == tmp_path / "again/index.html"
    first = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    assert {path.name: path.read_bytes() for path in again.parent.iterdir()} == first


def test_pictures_of_an_earlier_report_go_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    for name in ("alert-10-x.png", "link-99.png", "mine.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    write_report(folder, "ztf", 20181129, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.png", "notes.txt"} <= names
    assert not {"alert-10-x.png", "link-99.png"} & names


def test_a_night_without_alerts(folder: Path) -> None:
    path = write_report(folder, "ztf", 20181202)
    got = parsed(path)
    assert "No alerts" in got.text and "Balanced" in got.text
    assert [item.name for item in path.parent.iterdir()] == ["index.html"]
    assert set(got.targets) <= set(got.ids)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    root = write_archive(tmp_path, {20181129: [5]})
    ledger_path = root.path("ztf/ledger/night=20181129.json")
    ledger = json.loads(ledger_path.read_text())
    ledger["sources"][0]["name"] = "<script>alert(1)</script>.tar"
    ledger["reasons"] = {'"><img src=x onerror=alert(2)>': 2}
    ledger_path.write_text(json.dumps(ledger))
    text = write_report(tmp_path, "ztf", 20181129).read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_night_without_enrichment_stamps_or_exposures(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy/ztf/ledger/night=20181129.json"
    ledger = json.loads(path.read_text())
    for part in ledger["parts"]:
        del part["files"]["cutouts"]
        science = tmp_path / "copy" / part["files"]["science"]["path"]
        import pyarrow.parquet as pq

        with pq.ParquetFile(science) as file:
            table = file.read()
        pq.write_table(
            table.select([n for n in table.column_names if not n.startswith(("xm_", "clf_", "filter_"))]), science
        )
    ledger["night_files"] = {}
    ledger["timing"] = []
    path.write_text(json.dumps(ledger))
    got = parsed(write_report(tmp_path / "copy", "ztf", 20181129))
    assert "No stamps were kept" in got.text
    assert "No night module found a link" in got.text
    assert "needs the distance of a matched galaxy" in got.text
    assert "holds no timing" in got.text
    assert "none consulted" in got.text
    assert "no match" not in got.text, "a catalog that was not consulted is not one without a match"


def test_counts_equal_a_plain_count(folder: Path) -> None:
    archive = pipeline.open(folder)
    told = night.gather(archive, "ztf", 20181129)
    science = archive.science(20181129).to_arrow()
    assert {bar.name: bar.value for bar in told.filters} == {
        "kilonova": pc.sum(science["filter_kilonova"]).as_py(),
        "bright": pc.sum(science["filter_bright"]).as_py(),
    }
    by_name = {catalog.name: catalog for catalog in told.catalogs}
    assert by_name["galaxies"].matched == 70 - science["xm_galaxies_name"].null_count
    assert sum(len(values) for values in told.magnitudes.values()) == 70
    assert told.limits == {"g": pytest.approx(20.5), "r": pytest.approx(20.5)}
    first = datetime(1858, 11, 17) + timedelta(days=pc.min(science["mjd"]).as_py(), seconds=-37)  # TAI - UTC in 2018
    assert abs(datetime.fromisoformat(str(told.first_utc)) - first) < timedelta(seconds=0.6)
    assert told.links[0].alerts == len(told.links[0].ra) == 5


# ---------------------------------------------------------------------------------------- the command
def test_the_command(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(command, ["20181129", "--root", str(folder), "--out", str(tmp_path), "--json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.output)
    assert told == {"survey": "ztf", "night": "20181129", "alerts": 70, "page": str(tmp_path / "index.html")}
    plain = CliRunner().invoke(command, ["20181202", "--root", str(folder)])
    assert "report of ztf 20181202:" in plain.output


def test_the_command_names_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    def error_of(*arguments: str) -> str:
        result = CliRunner().invoke(command, list(arguments))
        assert isinstance(result.exception, InputError)
        return str(result.exception)

    assert "latest nights are: 20181129, 20181202" in error_of("20181201", "--root", str(folder))
    assert "does not exist" in error_of("20181129", "--root", str(tmp_path / "none"))
    assert "is not a night" in error_of("tonight", "--root", str(folder))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in error_of("20181129", "--root", str(folder), "--out", str(tmp_path / "file"))
    root = write_archive(tmp_path / "two", {20181129: [3]})
    write_night(root, "lsst", 20181129, [3])
    assert "--survey" in error_of("20181129", "--root", str(tmp_path / "two"))
