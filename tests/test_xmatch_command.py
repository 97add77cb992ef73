"""``alertmill xmatch``: tables and streams, what it prints, and one clear line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from synthetic_archive import write_archive, write_night

from pipeline.archive import open_archive
from pipeline.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xmatch")
    made = write_archive(folder / "data")
    write_night(made, "lsst", 20181129, [40])  # at the places of the first part of ztf
    other = write_archive(folder / "other", {20181129: [40]})
    write_night(other, "elasticc_v1", 20181129, [5])
    alerts = open_archive(folder / "data").science(survey="ztf", columns=["ra", "dec"]).to_arrow()
    table = alerts.append_column("radius", pa.array([1.0] * len(alerts))).append_column("id", pa.array(range(90)))
    pa.csv.write_csv(table, folder / "table.csv")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["xmatch", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_a_table(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (root / "table.csv", 20181129, 20181130, "--root", root / "data", "--quiet")
    code, out, err = run(capsys, *common, "--radius-arcsec", 1, "--survey", "ztf", "--out", tmp_path / "m.parquet")
    assert (code, err) == (0, "")
    assert "pairs                  90" in out
    found = pq.read_table(tmp_path / "m.parquet")
    assert sorted(found["row"].to_pylist()) == found["id"].to_pylist() == list(range(90))
    code, out, _ = run(capsys, *common, "--radius-column", "radius", "--out", tmp_path / "m.csv", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["pairs"] == pa.csv.read_csv(tmp_path / "m.csv").num_rows == 90 + 40  # both surveys
    moved = ("--radius-arcsec", 1, "--motion", "radius", "radius", "--epoch", 2018, "--out", tmp_path / "m.vot")
    assert run(capsys, *common, *moved)[0] == 0


def test_two_surveys_and_two_roots(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (20181129, 20181129, "--root", root / "data", "--survey", "ztf", "--json")
    code, out, _ = run(capsys, "--with", "lsst", *common, "--out", tmp_path / "a")
    assert code == 0
    assert json.loads(out)["other_alerts"] == 40
    assert sorted(item.name for item in (tmp_path / "a").iterdir()) == [
        "backward.parquet",
        "forward.parquet",
        "pairs.parquet",
    ]
    code, out, _ = run(capsys, "--with", root / "other", *common, "--out", tmp_path / "b")
    assert (code, json.loads(out)["forward"]) == (0, 40)  # the same survey of the other root
    more = ("--with-survey", "elasticc_v1", "--nights-apart", 1, "--look-ahead-day", 1, "--out", tmp_path / "c")
    code, out, _ = run(capsys, "--with", root / "other", *common, *more)
    assert (code, json.loads(out)["other_alerts"]) == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("t.csv", "20181129", "--radius-arcsec", "1"), "2 words were given, not TABLE START STOP"),
        (("t.csv", "20181130", "20181129", "--radius-arcsec", "1"), "night 20181130 is after 20181129"),
        (("t.csv", "20181131", "20181201", "--radius-arcsec", "1"), "is not a night"),
        (("t.csv", "20181129", "20181129"), "give one radius"),
        (("no.csv", "20181129", "20181129", "--radius-arcsec", "1"), "no.csv does not exist"),
        (("t.csv", "20200101", "20200102", "--radius-arcsec", "1"), "no night from 20200101 to 20200102"),
        (("t.csv", "20181129", "20181129", "--radius-arcsec", "1", "--epoch", "2016"), "nothing without --motion"),
        (("t.csv", "20181129", "20181129", "--radius-arcsec", "1", "--with-survey", "x"), "--with-survey goes with"),
        (("--with", "lsst", "20181129", "20181129", "--id", "x"), "--id goes with a table"),
        (("--with", "nowhere", "20181129", "20181129", "--survey", "ztf"), "neither a survey of"),
        (("--with", "ztf", "20181129", "20181129", "--survey", "ztf"), "matched with itself"),
        (
            ("--with", "lsst", "20181129", "20181129", "--survey", "ztf", "--nights-apart", "999999999"),
            "from 0 to 36525",
        ),
    ],
)
def test_one_clear_line(
    arguments: tuple[str, ...],
    told: str,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes((root / "table.csv").read_bytes())
    code, out, err = run(capsys, *arguments, "--root", root / "data", "--out", "out.parquet", "--quiet")
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("name", ["out.xyz", "nowhere/out.parquet"])
def test_out_that_cannot_be(name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--radius-arcsec", 1, "--root", root / "data", "--quiet", "--out", tmp_path / name)
    code, _, err = run(capsys, root / "table.csv", 20181129, 20181129, *common)
    assert code == 2
    assert "--out" in err
    assert not list(tmp_path.iterdir())
