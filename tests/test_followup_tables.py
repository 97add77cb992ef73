"""Positions on maps, and tables as files: every form, every kind of null, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning

from pipeline import healpix
from pipeline.errors import InputError
from pipeline.followup import positions
from pipeline.followup.files import check_target, named_for, read_table, write_bytes, write_table
from pipeline.schema import column
from pipeline.skymap import SkyMap, levels, make_skymap, volume_levels


def make_map(event: str, *, distance: bool = True) -> SkyMap:
    rng = np.random.default_rng(len(event))
    cells = 5_000 + np.arange(200)
    density = rng.uniform(1, 5, 200)
    density /= (density * healpix.cell_area_deg2(6)).sum()
    sigma = rng.uniform(5, 9, 200)
    given = {"distance_mu_mpc": rng.uniform(30, 50, 200), "distance_sigma_mpc": sigma}
    given["distance_norm"] = 1 / (given["distance_mu_mpc"] ** 2 + sigma**2)
    return make_skymap(event, 58_000.0, cells << 46, (cells + 1) << 46, density, given if distance else None)


def make_table(n: int = 50) -> pa.Table:
    rng = np.random.default_rng(8)
    ra, dec = healpix.pix2ang(29, (rng.integers(4_990, 5_210, n) << 46) + 12_345)
    return pa.table(
        {
            "id": pa.array(2**60 + np.arange(n)),
            "ra": pa.array(ra, mask=np.arange(n) == 3),
            "dec": dec,
            "dist_mpc": pa.array(rng.uniform(20, 60, n), mask=np.arange(n) % 4 == 0),
            "dist_err_mpc": pa.array(rng.uniform(1, 5, n), mask=np.arange(n) % 5 == 0),
            "name": pa.array([f"g{k}" if k % 3 else None for k in range(n)]),
        }
    )


def test_rows_keep_their_order_and_gain_what_the_map_says() -> None:
    table, skymap = make_table(), make_map("gw")
    found = positions(table, [skymap])
    assert found.column_names == [*table.column_names, "credible_level", "probdensity", "volume_level"]
    assert found.select(table.column_names).equals(table)
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    cells = np.where(np.isnan(ra), -1, healpix.ang2pix(29, np.nan_to_num(ra), dec))
    level, density = levels(skymap, cells)
    np.testing.assert_array_equal(found["credible_level"].to_numpy(), level)
    np.testing.assert_array_equal(found["probdensity"].to_numpy(), density * (180 / np.pi) ** 2)
    expected = volume_levels(skymap, cells, table["dist_mpc"].to_numpy(), table["dist_err_mpc"].to_numpy())
    np.testing.assert_array_equal(found["volume_level"].to_numpy(), expected)
    assert found.slice(3, 1).to_pylist()[0]["credible_level"] is None
    assert found["volume_level"].null_count == table["dist_mpc"].null_count + 1


def test_capitals_will_do() -> None:
    table = make_table()
    shouted = table.rename_columns([name.upper() for name in table.column_names])
    found, expected = (positions(item, [make_map("gw")]) for item in (shouted, table))
    assert found.column_names[: table.num_columns] == shouted.column_names
    for name in ("credible_level", "probdensity", "volume_level"):
        assert found[name].equals(expected[name])


def test_several_maps_put_their_event_before_the_name_and_a_flat_map_has_no_volume() -> None:
    found = positions(make_table(), [make_map("gw1"), make_map("gw22", distance=False)])
    names = ["gw1_credible_level", "gw1_probdensity", "gw1_volume_level", "gw22_credible_level", "gw22_probdensity"]
    assert found.column_names[6:] == names


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"ra": [1.0], "decl": [2.0]}, "no column dec .*it has ra, decl"),
        ({"ra": ["12h"], "dec": [2.0]}, "column ra holds no numbers"),
        ({"ra": [1.0], "dec": [2.0], "credible_level": [1.0]}, "column credible_level already"),
        ({"ra": [True], "dec": [2.0]}, "column ra holds no numbers"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(table: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        positions(pa.table(table), [make_map("gw")])


def test_whole_numbers_and_float32_are_coordinates_too_and_the_impossible_is_null() -> None:
    table = pa.table({"ra": pa.array([10, 400, 0]), "dec": pa.array([0.0, 91.0, np.nan], pa.float32())})
    assert positions(table, [make_map("gw")])["credible_level"].to_pylist() == [1.0, None, None]


# ---------------------------------------------------------------------------------------------------- files
def every_kind() -> pa.Table:
    return pa.table(
        [
            pa.array([2**53 + 1, None, -5]),
            pa.array([1, None, 3], pa.int32()),
            pa.array([1.5, None, -2.0]),
            pa.array([0.5, None, 1.0], pa.float32()),
            pa.array([True, None, False]),
            pa.array(["NGC 1", None, "é"]),
            pa.array([1, 2, 3], pa.int64()),
        ],
        schema=pa.schema(
            [
                column("long", pa.int64(), doc="an id"),
                column("short", pa.int32()),
                column("wide_mpc", pa.float64(), unit="Mpc", doc="distance"),
                column("thin", pa.float32()),
                column("flag", pa.bool_()),
                column("text", pa.string()),
                column("full", pa.int64()),
            ]
        ),
    )


def test_parquet_keeps_types_units_and_nulls(tmp_path: Path) -> None:
    write_table(every_kind(), tmp_path / "a.parquet")
    back = read_table(tmp_path / "a.parquet")
    assert back.equals(every_kind())
    assert back.schema.field("wide_mpc").metadata[b"unit"] == b"Mpc"


def test_csv_leaves_nulls_empty_and_ids_whole(tmp_path: Path) -> None:
    write_table(every_kind(), tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].split(",")[:2] == ['"long"', '"short"']
    assert lines[1].startswith("9007199254740993,1,1.5")
    assert lines[2] == ",,,,,,2"
    assert read_table(tmp_path / "a.csv")["long"].to_pylist() == [2**53 + 1, None, -5]


def test_fits_has_the_standard_s_nulls(tmp_path: Path) -> None:
    write_table(every_kind(), tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as opened:
        header, raw = opened[1].header, opened[1].data
        assert header["TUNIT3"] == "Mpc"
        assert header["TNULL1"] == -(2**63)
        assert "TNULL7" not in header
        assert np.rec.recarray.field(raw, "flag").tolist() == [ord("T"), 0, ord("F")]
        assert np.isnan(raw["thin"]).tolist() == [False, True, False]
    with pytest.warns(AstropyUserWarning, match="NULL"):
        back = Table.read(tmp_path / "a.fits")
    assert back["long"].tolist() == [2**53 + 1, None, -5]
    assert back["text"].tolist()[0] == "NGC 1"
    assert read_table(tmp_path / "a.fits")["long"].to_pylist() == [2**53 + 1, None, -5]


def test_votable_has_nulls_units_and_descriptions(tmp_path: Path) -> None:
    write_table(every_kind(), tmp_path / "a.vot")
    back = Table.read(tmp_path / "a.vot")
    assert back["long"].tolist() == [2**53 + 1, None, -5]
    assert back["flag"].tolist() == [True, None, False]
    assert back["text"].tolist() == ["NGC 1", None, "é"] or back["text"].tolist() == ["NGC 1", "", "é"]
    assert str(back["wide_mpc"].unit) == "Mpc"
    assert back["wide_mpc"].description == "distance"
    assert read_table(tmp_path / "a.vot")["wide_mpc"].to_pylist() == [1.5, None, -2.0]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()], ids=str)
def test_votable_and_fits_hold_every_digit_of_every_whole_number(tmp_path: Path, kind: pa.DataType) -> None:
    largest = int(np.iinfo(kind.to_pandas_dtype()).max)
    table = pa.table({"id": pa.array([0, largest, None], kind)})
    for name in ("a.vot", "a.fits"):
        write_table(table, tmp_path / name)
        read = read_table(tmp_path / name)["id"].to_pylist()
        assert [str(item) for item in read[:2]] == ["0", str(largest)]
        assert read[2] in (None, "")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".vot", ".fits"])
def test_no_rows_and_positions_of_every_form_read_back(tmp_path: Path, suffix: str) -> None:
    write_table(every_kind().slice(0, 0), tmp_path / f"none{suffix}")
    table = make_table().select(["ra", "dec", "dist_mpc"]).slice(4, 6)
    write_table(table, tmp_path / f"some{suffix}")
    back = read_table(tmp_path / f"some{suffix}")
    assert back["dec"].to_pylist() == pytest.approx(table["dec"].to_pylist(), abs=1e-12)
    assert back["dist_mpc"].null_count == table["dist_mpc"].null_count
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"none{suffix}", f"some{suffix}"]


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    nested = pa.table({"a": [[1, 2]]})
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(InputError, match="cannot hold the lists of column a"):
        write_table(nested, tmp_path / "a.csv")
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "nowhere" / "a.png", b"x")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_targets_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "b.fits").mkdir()
    for name, told in (("a.xlsx", "form of --out"), ("no/a.csv", "does not exist"), ("b.fits", "is a folder")):
        with pytest.raises(InputError, match=told):
            check_target(tmp_path / name, (".csv", ".fits"), "--out")
    assert named_for(Path("a/b.png"), "gw1", among=1) == Path("a/b.png")
    assert named_for(Path("a/b.png"), "gw1", among=2) == Path("a/b-gw1.png")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.fits", b"SIMPLE  =   T" * 400, "cannot be read"),
        ("a.fits", b"", "cannot be read"),
        ("a.vot", b"<VOTABLE><RESOURCE>", "cannot be read"),
        ("a.vot", b'<!DOCTYPE x [<!ENTITY a "b">]><VOTABLE/>', "entities"),
        ("a.parquet", b"PAR1 not", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"ra,dec\n1,2,3\n", "cannot be read"),
        ("a.txt", b"ra dec", "form of table"),
        ("none.csv", None, "does not exist"),
    ],
)
def test_a_damaged_table_is_told_in_one_line(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_csv_keeps_every_digit_of_ids_beyond_the_signed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,flux,ra,dec\n9007199254740993,1e30,1,2\n18446744073709551615,2.5,,2\n")
    table = read_table(tmp_path / "t.csv")
    assert table["id"].to_pylist() == [2**53 + 1, 2**64 - 1]
    assert table["flux"].to_pylist() == [1e30, 2.5]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_two_columns_of_one_name_are_told(tmp_path: Path, suffix: str) -> None:
    table = pa.Table.from_arrays([pa.array([1.0])] * 3, names=["x", "x", "dec"])
    write_table(table, tmp_path / f"t{suffix}")
    with pytest.raises(InputError, match="two columns x"):
        read_table(tmp_path / f"t{suffix}")


@pytest.mark.parametrize("suffix", [".csv", ".vot", ".fits"])
def test_a_column_that_a_form_cannot_hold_is_told(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"x": pa.array([b"\xff\x00", b"a"])})
    with pytest.raises(InputError, match="cannot hold a column"):
        write_table(table, tmp_path / f"t{suffix}")
    assert not list(tmp_path.iterdir())
    write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").equals(table)
