"""``alertmill catalogs`` and declarations of plain tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from catalog_samples import declare, write_fits, write_parquet, write_text, write_votable
from click.testing import CliRunner

from pipeline import catalogs
from pipeline.cli.catalogs import command
from pipeline.errors import CatalogError, InputError


def test_command(tmp_path: Path) -> None:
    file, folder = write_parquet(tmp_path), str(tmp_path / "built")
    own = tmp_path / "own"
    own.mkdir()
    text = 'name = "stars"\ndoc = "d"\nsource = "s"\nlicence = "l"\nra = "RA"\ndec = "DE"\nradius_arcsec = 5\n'
    (own / "stars.toml").write_text(text)
    runner = CliRunner()

    def call(*arguments: str) -> str:
        result = runner.invoke(command, [*arguments, "--folder", folder], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    facts = json.loads(call("build", "stars", str(file), "--declarations", str(own), "--json"))
    assert (facts["rows"], facts["rows_without_position"]) == (4, 1)
    assert json.loads(call("info", "stars", "--json")) == facts
    assert "xm_stars_separation_arcsec" in call("info", "stars")
    assert "intact" in call("verify", "stars")
    assert json.loads(call("verify", "stars", "--json"))["digest"] == facts["digest"]
    listed = {row["name"]: row["rows"] for row in json.loads(call("list", "--declarations", str(own), "--json"))}
    assert (listed["stars"], listed["vsx"]) == (4, None)
    assert "stars" in call("list", "--declarations", str(own))
    with pytest.raises(CatalogError, match="no built catalog"):
        runner.invoke(command, ["info", "vsx", "--folder", folder], catch_exceptions=False)
    for name in ("list", "fetch", "build", "info", "verify"):
        shown = runner.invoke(command, [name, "--help"]).output
        assert "Example" in shown


def test_list_tells_what_cannot_be_opened_and_what_is_not_declared(tmp_path: Path) -> None:
    catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "built" / "stars")
    (tmp_path / "built" / "vsx").mkdir()
    (tmp_path / "built" / "vsx" / "meta.json").write_text('{"layout": 1}')
    result = CliRunner().invoke(
        command, ["list", "--json", "--folder", str(tmp_path / "built")], catch_exceptions=False
    )
    listed = {row["name"]: row for row in json.loads(result.output)}
    assert listed["stars"]["rows"] == 4
    assert "layout 1" in listed["vsx"]["problem"]
    assert (listed["gaia_dr3"]["service"], listed["gaia_dr3"]["problem"]) == ("gaia", None)
    shown = CliRunner().invoke(command, ["list", "--folder", str(tmp_path / "built")], catch_exceptions=False).output
    assert "layout 1" in shown


# ------------------------------------------------------------------------------------------------ plain tables
@pytest.mark.parametrize("write", [write_parquet, write_text, write_fits, write_votable])
def test_a_plain_table_needs_no_declaration(write: object, tmp_path: Path) -> None:
    file = write(tmp_path)  # type: ignore[operator]
    arguments = ["build", "mine", str(file), "--ra", "RA", "--dec", "DE", "--radius-arcsec", "2.5", "--id", "No"]
    arguments += ["--epoch", "2015.5", "--snapshot-date", "2026-02-03", "--folder", str(tmp_path / "built"), "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    catalog = catalogs.open_catalog(tmp_path / "built" / "mine")
    assert (catalog.rows, catalog.rows_without_position, catalog.snapshot_date) == (4, 1, "2026-02-03")
    assert (catalog.declaration.radius_arcsec, catalog.declaration.epoch, catalog.declaration.id) == (2.5, 2015.5, "no")
    types = {item.name: item.type for item in catalog.declaration.columns}
    assert types.items() >= {"no": "int64", "type": "string"}.items()
    assert types["vmag"].startswith("float")
    assert sorted(catalog.take(np.arange(4), ["no"])["no"].to_pylist()) == [2, 4, 5, 2**60 + 1]


def test_types_of_text_are_told_by_all_values(tmp_path: Path) -> None:
    rows = 30_000  # more than one block of the file
    file = tmp_path / "long.csv"
    lines = [f"{k % 360},{k % 90},{k},{k},{k},{'' if k % 2 else k},{'x' * 400}" for k in range(rows)]
    lines += ["1,2,9223372036854775807,0.5,x,,y", "1,2,nan,nan,nan,nan,nan"]
    file.write_text("ra,dec,whole,Number,mixed,sparse (mag),long\n" + "\n".join(lines[:-1]))
    declaration = catalogs.declare_table("mine", file, "ra", "dec", 2.0)
    assert {item.name: item.type for item in declaration.columns} == {
        **{"whole": "int64", "number": "float64", "mixed": "string", "sparse_mag": "int64", "long": "string"}
    }
    catalog = catalogs.build(declaration, file, tmp_path / "mine")
    assert catalog.rows == rows + 1
    file.write_text("ra,dec,whole\n" + "\n".join(["1,2,3", "1,2,nan"]))
    assert catalogs.declare_table("mine", file, "ra", "dec", 2.0).columns[0].type == "float64"


def test_no_digit_of_an_identifier_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    large, above = 2**53 + 1, 2**64 - 1
    file.write_text(f"ra,dec,whole,beyond,mixed,padded\n1,2,{large},{above},{large},007\n1,3,,,1.5,12\n")
    declaration = catalogs.declare_table("mine", file, "ra", "dec", 2.0)
    catalog = catalogs.build(declaration, file, tmp_path / "mine")
    names = [item.name for item in declaration.columns]
    rows = {row["padded"]: row for row in catalog.take(np.arange(2), names).to_pylist()}
    assert rows["007"] == {"whole": large, "beyond": str(above), "mixed": str(large), "padded": "007"}
    assert rows["12"] == {"whole": None, "beyond": None, "mixed": "1.5", "padded": "12"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_there_twice_is_refused_in_one_line(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"twice.{form}"
    if form == "csv":
        file.write_text('ra,dec,x,"x"\n1,2,3,4\n')
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([1.0])] * 4, names=["ra", "dec", "x", "x"]), file)
    columns = [{"name": "value", "source": "x", "type": "float64"}]
    for act in (
        lambda: catalogs.declare_table("mine", file, "ra", "dec", 2.0),
        lambda: catalogs.build(declare(ra="ra", dec="dec", id="value", column=columns), file, tmp_path / "mine"),
    ):
        with pytest.raises(CatalogError, match="has column x more than once"):
            act()
    plain = declare(ra="ra", dec="dec", id="value", column=[{"name": "value", "source": "dec", "type": "float64"}])
    assert catalogs.build(plain, file, tmp_path / "mine").rows == 1  # it matters only where it is asked for


def test_columns_of_fits_that_no_catalog_can_hold_are_left_out(tmp_path: Path) -> None:
    table = Table({"ra": [1.0, 2.0], "dec": [1.0, 2.0], "z": np.zeros(2, complex), "n": np.array([1, 65535], "u2")})
    table["lists"] = np.array([np.array([1, 2]), np.array([3])], dtype=object)
    table.write(tmp_path / "odd.fits")
    declaration = catalogs.declare_table("mine", tmp_path / "odd.fits", "ra", "dec", 2.0)
    assert {item.name: item.type for item in declaration.columns} == {"n": "int32"}
    columns = [{"name": "lists", "source": "lists", "doc": "of different lengths"}]
    with pytest.raises(CatalogError, match="column lists holds lists"):
        asked = declare(ra="ra", dec="dec", id="lists", column=columns)
        catalogs.build(asked, tmp_path / "odd.fits", tmp_path / "mine")


def test_names_of_columns_are_ours(tmp_path: Path) -> None:
    table = pa.table({name: [1.0] for name in ("RA", "DE", "B-V", "b_v", "ID", "\N{GREEK SMALL LETTER GAMMA}", "Dec")})
    nested = table.append_column("list", pa.array([[1, 2]])).append_column("big", pa.array([2**63], pa.uint64()))
    pq.write_table(nested, tmp_path / "names.parquet")
    declaration = catalogs.declare_table("mine", tmp_path / "names.parquet", "RA", "DE", 2.0)
    assert {item.source: item.name for item in declaration.columns} == {
        **{
            "B-V": "b_v",
            "b_v": "b_v_2",
            "ID": "column_id",
            "\N{GREEK SMALL LETTER GAMMA}": "column",
            "Dec": "column_dec",
        }
    }
    assert catalogs.build(declaration, tmp_path / "names.parquet", tmp_path / "mine").rows == 1


def test_plain_options_that_do_not_fit(tmp_path: Path) -> None:
    file, folder = write_parquet(tmp_path), str(tmp_path / "built")

    def refused(*arguments: str) -> str:
        with pytest.raises((CatalogError, InputError)) as caught:
            CliRunner().invoke(command, ["build", *arguments, "--folder", folder], catch_exceptions=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    position = ("--ra", "RA", "--dec", "DE")
    assert "needs --radius-arcsec" in refused("mine", str(file), *position)
    assert "gcvs is a declared catalog" in refused("gcvs", str(file), *position, "--radius-arcsec", "2")
    assert "lacks column DEC" in refused("mine", str(file), "--ra", "RA", "--dec", "DEC", "--radius-arcsec", "2")
    assert "cannot name a catalog" in refused("My", str(file), *position, "--radius-arcsec", "2")
    assert "does not exist" in refused("mine", "none.csv", *position, "--radius-arcsec", "2")
    assert "radius_arcsec -1" in refused("mine", str(file), *position, "--radius-arcsec", "-1")
    assert "cannot identify" in refused("mine", str(file), *position, "--radius-arcsec", "2", "--id", "RA")
    assert "is no day" in refused("mine", str(file), *position, "--radius-arcsec", "2", "--snapshot-date", "today")
    assert not (tmp_path / "built").exists()


@pytest.mark.parametrize(
    "kind",
    [
        '<!DOCTYPE VOTABLE [<!ENTITY a "b">]>',
        '<!doctype VOTABLE SYSTEM "x.dtd">',
        f'<!--{" " * (2 << 20)}-->\n<!DOCTYPE VOTABLE [<!ENTITY a "b">]>',
    ],
)
def test_a_votable_with_a_document_type_is_not_read(kind: str, tmp_path: Path) -> None:
    file = write_votable(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("<VOTABLE", f"{kind}\n<VOTABLE", 1))
    for call in (
        lambda: catalogs.declare_table("mine", file, "RA", "DE", 2.0),
        lambda: catalogs.build(declare(), file, tmp_path / "stars"),
    ):
        with pytest.raises(CatalogError, match="document type"):
            call()
