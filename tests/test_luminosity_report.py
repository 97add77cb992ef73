"""Luminosities in the night report and its command: host, absolute magnitudes, what is unknown and what uncorrected."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from synthetic_archive import write_archive

import pipeline
from pipeline import luminosity
from pipeline.cli.report import command
from pipeline.errors import InputError
from pipeline.photometry import flux_from_mag
from pipeline.report import axes, curves, palette, write_report
from pipeline.report.cards import cards
from pipeline.report.night import gather

NIGHT = 20181129
STORY = {
    **{"host_name": "NGC3052", "host_alias": "09542791-1838202", "host_catalog": "mangrove"},
    **{"host_distance_mpc": 57.2517, "host_distance_err_mpc": None, "host_redshift": None},
    **{"host_separation_arcsec": 12.579, "host_separation_kpc": 3.432, "host_n_candidates": 1},
    **{"ra": 148.6188113, "dec": -18.6363575, "band": "r", "diff_mag": 18.25, "diff_err_mag": 0.07},
    **{"flux_njy": float(flux_from_mag(18.25)), "object_key": "ZTF24story", "is_injected": False, "is_public": True},
}


def rewrite(folder: Path, change: dict[str, object], row: int) -> None:
    """Change one row of the science of the second part; readers do not look at sums."""
    file = next((folder / "ztf" / "science").rglob("part-*-00001-*.parquet"))
    table = pq.read_table(file, partitioning=None)
    for name, value in change.items():
        values = table[name].to_pylist()
        values[row] = value
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row 3 is the kilonova candidate within the sky map, so it is shown first: story 1's."""
    path = tmp_path_factory.mktemp("report")
    write_archive(path, {NIGHT: [40, 30]}, hosts=True)
    rewrite(path, STORY, 3)
    return path


def words(page: Path) -> str:
    text = re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", unescape(text))


def test_the_page_tells_story_1(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder, "ztf", NIGHT, tmp_path, luminosity=True)
    told = words(page)
    assert "NGC3052 (09542791-1838202, mangrove), 57.25 Mpc (error unknown); 3.43 kpc away in projection" in told
    assert "M \N{MINUS SIGN}15.54 mag in r (error unknown)" in told
    assert "uncorrected for extinction" in told
    assert "absolute magnitude (AB mag), uncorrected for extinction" in page.read_text(encoding="utf-8")
    assert "unknown: no host of known distance" in told
    assert (tmp_path / "absolute.png").read_bytes().startswith(b"\x89PNG")
    assert 'data-view="absolute" aria-pressed="true"' in page.read_text(encoding="utf-8")
    # without the switch the host is told, but no luminosity, and the figure of before goes
    told = words(write_report(folder, "ztf", NIGHT, tmp_path))
    assert "NGC3052 (09542791-1838202, mangrove)" in told
    assert "absolute magnitude" not in told and "M \N{MINUS SIGN}15.54" not in told
    assert not (tmp_path / "absolute.png").exists()


def test_cards_of_known_errors_negative_fluxes_and_no_hosts(folder: Path) -> None:
    archive = pipeline.open(folder)
    night = gather(archive, "ztf", NIGHT, luminosity=True)
    listed = cards(archive, night, 70)
    kinds = {"error": 0, "unknown error": 0, "negative": 0, "no host": 0}
    for card in listed:
        views = {drawing.key: bool(drawing.svg) for drawing in card.drawings}
        if card.alert["host_distance_mpc"] is None:
            kinds["no host"] += 1
            assert (card.host, card.luminosity, card.view) == (None, [], "mag")
            assert not views["absolute"] and not views["luminosity"]
            continue
        assert card.host is not None and card.luminosity[-1] == "uncorrected for extinction"
        assert views["luminosity"]
        if card.alert["flux_njy"] <= 0:
            kinds["negative"] += 1
            assert card.luminosity[0].startswith(f"{axes.NU}L{axes.NU} {axes.MINUS}")
        else:
            known = card.alert["host_distance_err_mpc"] is not None
            kinds["error" if known else "unknown error"] += 1
            assert ("±" in card.luminosity[0]) == known == ("± 4.50 Mpc" in card.host)
    assert all(kinds.values()), kinds


def test_the_figure_counts_positive_alerts_with_a_host(folder: Path) -> None:
    night = gather(pipeline.open(folder), "ztf", NIGHT, luminosity=True)
    assert night.absolute is not None
    science = night.science
    hosted = science["host_distance_mpc"].is_valid().to_numpy(zero_copy_only=False)
    shown = hosted & (science["flux_njy"].to_numpy() > 0)
    assert sum(len(values) for values in night.absolute.values()) == shown.sum() > 5


def test_absolute_magnitudes_stand_where_they_should() -> None:
    """Two points and their ticks: M = m - A - DM + 2.5 log10(1+z); a negative difference is left out."""
    source = curves.Source(57.2517, luminosity.ZTF, 0.1, 0.05)
    flux = flux_from_mag(np.array([18.25, 17.25, 17.0])) * [1, 1, -1]
    points = curves.Points(np.array([-4.0, 0.0, 1.0]), flux, np.full(3, 10.0), ["g"] * 3, ["detection"] * 3)
    drawn = curves.drawings(points, source, label="x", absolute=True)
    assert [item.key for item in drawn] == ["mag", "flux", "luminosity", "absolute"]
    root = ElementTree.fromstring(drawn[3].svg)
    (marks,) = [path for path in root.iter("path") if path.attrib.get("fill") == palette.style("g").colour]
    y = [float(b) for _, b in re.findall(r"M([\d.]+) ([\d.]+)m", marks.attrib["d"])]
    ticks = {
        float(str(t.text).replace(axes.MINUS, "-")): float(t.attrib["y"]) - 4
        for t in root.iter("text")
        if t.attrib.get("text-anchor") == "end" and t.text != "corrected for extinction"
    }
    (low, at_low), *_, (high, at_high) = sorted(ticks.items())
    values = [low + (item - at_low) / (at_high - at_low) * (high - low) for item in y]
    expected = luminosity.absolute_mag(np.array([18.25, 17.25]), 57.2517, 0.1, 0.05 * 3.272)
    np.testing.assert_allclose(values, expected, atol=0.01)
    assert "absolute magnitude (AB mag), corrected for extinction" in root.attrib["aria-label"]
    negative = curves.Points(np.zeros(1), np.array([-1e5]), np.array([10.0]), ["g"], ["detection"])
    assert (
        curves.drawings(negative, source, label="x", absolute=True)[3].missing == "no point is significant and positive"
    )


def test_the_run_setting_is_followed_where_there_are_hosts(folder: Path, tmp_path: Path) -> None:
    for hosts in (True, False):
        path = tmp_path / str(hosts)
        root = write_archive(path, {NIGHT: [12]}, hosts=hosts)
        file = root.path(f"ztf/ledger/night={NIGHT}.json")
        ledger = json.loads(file.read_text()) | {"settings": {"luminosity": True}}
        file.write_text(json.dumps(ledger))
        assert gather(pipeline.open(path), "ztf", NIGHT).has_luminosity == hosts


def test_the_command(folder: Path, tmp_path: Path) -> None:
    asked = [str(NIGHT), "--root", str(folder), "--out", str(tmp_path), "--luminosity"]
    run = CliRunner().invoke(command, asked)
    assert run.exit_code == 0, run.output
    assert "M \N{MINUS SIGN}15.54" in words(tmp_path / "index.html")
    absent = CliRunner().invoke(command, [*asked, "--dust-map", str(tmp_path / "none")])
    assert isinstance(absent.exception, InputError)
    assert "there is no dust map at" in str(absent.exception)
    write_archive(tmp_path / "plain", {NIGHT: [4]})
    without = CliRunner().invoke(command, [str(NIGHT), "--root", str(tmp_path / "plain"), "--luminosity"])
    assert isinstance(without.exception, InputError)
    assert "luminosities need host galaxies" in str(without.exception)
    assert not (tmp_path / "plain" / "reports").exists()
