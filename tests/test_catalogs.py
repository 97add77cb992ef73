"""Declarations, building catalogs from every form of file, opening them, and the command."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from click.testing import CliRunner

from pipeline import catalogs, healpix
from pipeline.catalogs import building, opened
from pipeline.cli.catalogs import command
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogColumn, CatalogDeclaration, HostColumns, Motion, parse_declaration

REAL = {
    "mangrove": (["mangrove.parquet"], 295_341, 0),
    "vsx": (["vsx_compact.parquet"], 1_933_544, 0),
    "gcvs": (["gcvs.parquet"], 59_099, 0),
    "spicy": (["spicy.parquet"], 117_446, 0),
    "x3hsp": (["3hsp.csv"], 2_013, 0),
    "x4lac": (["table-4LAC-DR3-h.fits", "table-4LAC-DR3-l.fits"], 3_814, 0),
    "openngc": (["openngc.csv.gz"], 13_962, 7),
}


def declare(**changes: object) -> CatalogDeclaration:
    values: dict[str, object] = {
        "name": "stars",
        "doc": "some stars",
        "source": "made up",
        "licence": "none",
        "ra": "RA",
        "dec": "DE",
        "radius_arcsec": 2.0,
        "id": "number",
        "missing": ["None"],
        "column": [
            {"name": "number", "source": "No", "type": "int64", "doc": "number"},
            {"name": "kind", "source": "Type", "doc": "type"},
            {"name": "mag", "source": "Vmag", "type": "float32", "unit": "mag", "doc": "V magnitude"},
        ],
    }
    return parse_declaration({**values, **changes}, "stars.toml")


STARS = pa.table(
    {
        "No": pa.array([2**60 + 1, 2, 3, 4, 5], pa.int64()),
        "RA": [350.5, 10.25, float("nan"), 120.0, 120.0],
        "DE": [-89.5, 0.5, 3.0, 45.0, 45.0],
        "Type": ["RR  ", "None", "EA", "", " M "],
        "Vmag": [12.5, float("nan"), 13.0, 14.25, None],
        "unused": [1, 2, 3, 4, 5],
    }
)
# Rows sorted by cell, those of one cell as they came; the third has no position.
EXPECTED = {2**60 + 1: ("RR", 12.5), 2: (None, None), 4: (None, 14.25), 5: ("M", None)}


def write_parquet(folder: Path) -> Path:
    pq.write_table(STARS.set_column(3, "Type", STARS["Type"].dictionary_encode()), folder / "stars.parquet")
    return folder / "stars.parquet"


def write_text(folder: Path) -> Path:
    lines = [" No , RA , DE , Type , Vmag , unused"]
    for row in STARS.to_pylist():
        texts = ["" if item is None else str(item) for item in row.values()]
        texts[3] = f'"{row["Type"]}" '
        lines.append(" , ".join(texts))
    file = folder / "stars.csv.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def _astropy_table() -> Table:
    table = Table({name: STARS[name].to_numpy(zero_copy_only=False) for name in ("No", "RA", "DE")})
    table["Type"] = np.array(STARS["Type"].to_pylist(), dtype="U4")
    mag = STARS["Vmag"].to_numpy(zero_copy_only=False).astype(float)
    table["Vmag"] = MaskedColumn(mag, mask=np.isnan(mag))
    return table


def write_fits(folder: Path) -> Path:
    _astropy_table().write(folder / "stars.fits")
    return folder / "stars.fits"


def write_votable(folder: Path) -> Path:
    _astropy_table().write(folder / "stars.vot", format="votable")
    return folder / "stars.vot"


@pytest.mark.parametrize("write", [write_parquet, write_text, write_fits, write_votable])
def test_every_form_of_file_gives_the_same_catalog(write: Callable[[Path], Path], tmp_path: Path) -> None:
    catalog = catalogs.build(declare(), write(tmp_path), tmp_path / "built" / "stars")
    assert (catalog.rows, catalog.rows_without_position) == (4, 1)
    table = catalog.take(np.arange(4), ["number", "kind", "mag"])
    assert {row["number"]: (row["kind"], row["mag"]) for row in table.to_pylist()} == EXPECTED
    assert table["number"].to_pylist()[-2:] != [5, 4]  # the two of one cell stay in file order
    cells = healpix.ang2pix(29, catalog.index.ra, catalog.index.dec)
    np.testing.assert_array_equal(catalog.index.healpix_29, cells)
    assert (np.diff(cells) >= 0).all()
    parquet = catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "parquet")
    assert catalog.digest == parquet.digest
    assert sorted(item.name for item in (tmp_path / "built").iterdir()) == ["stars"]  # nothing left behind


def test_build_is_repeatable_and_replaces(tmp_path: Path) -> None:
    file = write_parquet(tmp_path)
    first = catalogs.build(declare(), file, tmp_path / "stars")
    names = sorted(item.name for item in first.path.iterdir())
    contents = {name: (first.path / name).read_bytes() for name in names}
    again = catalogs.build(declare(), file, tmp_path / "stars")
    assert {name: (again.path / name).read_bytes() for name in names} == contents
    assert catalogs.build(declare(radius_arcsec=3.0), file, tmp_path / "stars").digest != first.digest
    part = catalogs.build(declare(), file, tmp_path / "stars", covered=healpix.ranges_of(0, [1, 2]))
    assert part.digest != first.digest
    assert part.covered.tolist() == [[1 << 58, 3 << 58]]


def test_several_files_are_joined(tmp_path: Path) -> None:
    pq.write_table(STARS.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(STARS.slice(2), tmp_path / "b.parquet")
    joined = catalogs.build(declare(), [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "joined")
    assert joined.digest == catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "whole").digest


def test_it_pickles_by_path(tmp_path: Path) -> None:
    catalog = catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "stars")
    data = pickle.dumps(catalog)
    assert len(data) < 300
    copy = pickle.loads(data)
    assert copy.digest == catalog.digest
    assert copy.index.healpix_29.tolist() == catalog.index.healpix_29.tolist()


def test_take_across_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "ROW_GROUP", 10)
    monkeypatch.setattr(building, "ROW_GROUP", 10)
    monkeypatch.setattr(opened, "_GROUPS_KEPT", 3)
    n = 95
    rng = np.random.default_rng(0)
    table = pa.table({"RA": rng.uniform(0, 360, n), "DE": rng.uniform(-90, 90, n), "No": np.arange(n)})
    pq.write_table(table, tmp_path / "many.parquet")
    columns = [{"name": "number", "source": "No", "type": "int64"}]
    catalog = catalogs.build(declare(column=columns), tmp_path / "many.parquet", tmp_path / "many")
    order = catalog.take(np.arange(n), ["number"])["number"].to_numpy()
    np.testing.assert_array_equal(table["RA"].to_numpy()[order], catalog.index.ra)
    asked = rng.integers(0, n, 300)
    np.testing.assert_array_equal(catalog.take(asked, ["number"])["number"].to_numpy(), order[asked])
    assert len(catalog._groups) == 3
    assert catalog.take(np.array([], dtype=np.int64), ["number"]).num_rows == 0


# ------------------------------------------------------------------------------------------------ what is refused
def _line(caught: pytest.ExceptionInfo[CatalogError]) -> str:
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_bad_files_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "stars"
    good = write_parquet(tmp_path)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:500])
    words = tmp_path / "words.csv"
    words.write_text("RA,DE,No,Type,Vmag\n1.0,2.0,7,EA,bright\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    broken = tmp_path / "broken.fits"
    broken.write_bytes(b"SIMPLE" * 100)
    lost = tmp_path / "lost.csv"
    lost.write_text("RA,DE,No,Type,Vmag\n,,7,EA,1.0\n500.0,200.0,8,EA,1.0\n")
    cases: list[tuple[Path, CatalogDeclaration, str]] = [
        (tmp_path / "none.parquet", declare(), "does not exist"),
        (tmp_path / "stars.doc", declare(), "does not exist"),
        (cut, declare(), "cannot be read"),
        (empty, declare(), "cannot be read"),
        (broken, declare(), "cannot be read"),
        (words, declare(), "column Vmag"),
        (lost, declare(), "none of 2 rows has a position"),
        (good, declare(ra="RAJ2000"), "lacks column RAJ2000"),
        (good, declare(checksum="0" * 64), "sha256"),
    ]
    (tmp_path / "stars.doc2").write_text("x")
    cases.append((tmp_path / "stars.doc2", declare(), "not known by its name"))
    for file, declaration, message in cases:
        with pytest.raises(CatalogError, match=message) as caught:
            catalogs.build(declaration, file, target)
        _line(caught)
        assert not target.exists()
    with pytest.raises(CatalogError, match="is not a catalog"):
        catalogs.build(declare(), good, tmp_path)
    with pytest.raises(CatalogError, match="no file"):
        catalogs.build(declare(), [], target)


def test_a_failed_build_leaves_the_old_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_parquet(tmp_path)
    old = catalogs.build(declare(), file, tmp_path / "built" / "stars")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(CatalogError, match="No space left"):
        catalogs.build(declare(radius_arcsec=9.0), file, tmp_path / "built" / "stars")
    monkeypatch.undo()
    assert catalogs.open_catalog(old.path).digest == old.digest
    assert [item.name for item in (tmp_path / "built").iterdir()] == ["stars"]


def test_damage_is_found(tmp_path: Path) -> None:
    file = write_parquet(tmp_path)
    with pytest.raises(CatalogError, match="no built catalog"):
        catalogs.open_catalog(tmp_path / "stars")
    catalog = catalogs.build(declare(), file, tmp_path / "stars")
    catalog.verify()
    data = (catalog.path / "dec.npy").read_bytes()
    (catalog.path / "dec.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CatalogError, match=r"dec\.npy differs"):
        catalogs.open_catalog(catalog.path).verify()
    (catalog.path / "dec.npy").write_bytes(data[:-8])
    with pytest.raises(CatalogError, match="bytes instead of"):
        catalogs.open_catalog(catalog.path)
    (catalog.path / "dec.npy").unlink()
    with pytest.raises(CatalogError, match="is missing"):
        catalogs.open_catalog(catalog.path)
    meta = catalog.path / "meta.json"
    text = meta.read_text()
    for damaged, message in [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"layout": 1}', "damaged"),
        (text.replace('"layout": 1', '"layout": 9'), "layout 9"),
        (text.replace('"ra.npy"', '"../ra.npy"'), "other files"),
    ]:
        meta.write_text(damaged)
        with pytest.raises(CatalogError, match=message) as caught:
            catalogs.open_catalog(catalog.path)
        _line(caught)


def test_a_column_it_was_built_without(tmp_path: Path) -> None:
    catalog = catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "stars")
    with pytest.raises(CatalogError, match="no column colour"):
        catalog.take(np.array([], dtype=np.int64), ["colour"])


def test_sexagesimal_angles(tmp_path: Path) -> None:
    file = tmp_path / "ngc.csv"
    file.write_text('RA;DE\n00:08:27.05;-00:43:03.6\n"23 59 59.99";+89 00 00\n;\n')
    declaration = parse_declaration(
        {
            **dict.fromkeys(("doc", "source", "licence"), "x"),
            **{"name": "ngc", "ra": "RA", "dec": "DE", "radius_arcsec": 1, "position_format": "sexagesimal"},
            **{"delimiter": ";"},
        },
        "ngc.toml",
    )
    catalog = catalogs.build(declaration, file, tmp_path / "ngc")
    assert sorted(zip(catalog.index.ra, catalog.index.dec, strict=True)) == [
        (pytest.approx(2.1127083333333334, abs=1e-13), pytest.approx(-0.7176666666666667, abs=1e-13)),
        (pytest.approx(359.99995833333335, abs=1e-12), 89.0),
    ]
    assert catalog.rows_without_position == 1
    file.write_text("RA;DE\n00:08:27.05;north\n")
    with pytest.raises(CatalogError, match="'north' is not a sexagesimal angle"):
        catalogs.build(declaration, file, tmp_path / "ngc")


# ------------------------------------------------------------------------------------------------ declarations
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 2}, "unknown key radius"),
        ({"columns": []}, "unknown key columns"),
        ({"radius_arcsec": "2"}, "not a number"),
        ({"radius_arcsec": 0}, "radius_arcsec 0"),
        ({"radius_arcsec": True}, "not a number"),
        ({"name": "My Stars"}, "cannot name a catalog"),
        ({"ra": 5}, "ra of a catalog declaration is not a text"),
        ({"id": "nothing"}, "id nothing"),
        ({"position_format": "hours"}, "position_format hours"),
        ({"delimiter": ";;"}, "delimiter"),
        ({"missing": "None"}, "not a list"),
        ({"column": [{"name": "a"}, {"name": "a"}], "id": "a"}, "twice"),
        ({"column": [{"name": "n_neighbours"}]}, "cannot name a column"),
        ({"column": [{"name": "a", "type": "float"}]}, "type float"),
        ({"column": [{"source": "a"}]}, "has no name"),
        ({"column": [{"name": "a", "colour": "b"}]}, "unknown key colour"),
        ({"column": ["a"]}, "not a table of texts"),
        ({"epoch": 20160.0}, "epoch 20160"),
        ({"margin_arcsec": 1.0}, "margin_arcsec 1.0 is not from radius_arcsec 2.0"),
        ({"margin_arcsec": 0}, "margin_arcsec 0"),
        ({"margin_arcsec": float("nan")}, "margin_arcsec nan"),
        ({"margin_arcsec": "wide"}, "margin_arcsec of a catalog declaration is not a number"),
        ({"snapshot": 1}, "neither true nor false"),
        ({"motion": "pm"}, r"\[motion\] of a catalog declaration is not a table"),
        ({"motion": {"pmra": "a"}}, "needs the columns pmra and pmdec"),
        ({"motion": {"pmra": "a", "pmdec": 1}}, "needs the columns pmra and pmdec"),
        ({"motion": {"pmra": "a", "pmdec": "b", "epoch": 2016}}, "unknown key epoch"),
        ({"host": {"radius_kpc": 30}}, "neither distance_mpc nor redshift"),
        ({"host": {"redshift": "z"}}, "redshift 'z' is not one of the declared columns"),
        ({"host": {"redshift": "kind"}}, "redshift is column kind of type string, not a number"),
        ({"host": {"redshift": "mag", "name": "mag"}}, "name is column mag of type float32, not a text"),
        ({"host": {"redshift": "mag", "radius_kpc": 0}}, "radius_kpc 0"),
        ({"host": {"redshift": "mag", "radius_kpc": "far"}}, "radius_kpc of a catalog declaration is not a number"),
        ({"host": {"redshift": "mag", "radius": 30}}, "unknown key radius"),
        ({"service": []}, r"\[service\] of a catalog declaration is not a table"),
        ({"service": {"table": "x"}}, "lacks kind"),
        ({"service": {"kind": "tap", "deep": {}}}, "deep is not a text, a number or a list"),
        ({"service": {"kind": "tap", "columns": [1]}}, "columns is not a text"),
    ],
)
def test_wrong_declarations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        declare(**changes)
    assert "stars.toml" in _line(caught)


def test_what_a_declaration_lacks_is_named() -> None:
    with pytest.raises(CatalogError, match="lacks doc, source, licence, ra, dec, radius_arcsec"):
        parse_declaration({"name": "stars"}, "stars.toml")


def test_motion_host_service_and_margin() -> None:
    plain = declare()
    assert (plain.margin_arcsec, plain.motion, plain.host, plain.service, plain.snapshot) == (
        10,
        None,
        None,
        None,
        False,
    )
    full = declare(
        radius_arcsec=30,
        motion={"pmra": "pmRA", "pmdec": "pmDE"},
        host={"redshift": "mag", "name": "kind"},
        service={"kind": "tap", "table": "x", "chunk": 1000, "columns": ["a", "b"]},
        snapshot=True,
    )
    assert full.margin_arcsec == 30.0
    assert full.motion == Motion("pmRA", "pmDE")
    assert full.host == HostColumns(radius_kpc=30.0, redshift="mag", name="kind")
    assert full.sources() == ["RA", "DE", "pmRA", "pmDE", "No", "Type", "Vmag"]
    assert parse_declaration(json.loads(json.dumps(full.to_dict())), "again") == full
    assert declare(margin_arcsec=60).margin_arcsec == 60.0


def test_shipped_declarations() -> None:
    shipped = catalogs.load_declarations()
    assert {*REAL, "sim_galaxies", "sim_variables", "sim_agn"} <= set(shipped)
    for name, declaration in shipped.items():
        assert (catalogs.declarations.packaged_folder() / f"{name}.toml").is_file()
        assert parse_declaration(declaration.to_dict(), name) == declaration
        assert all(item.doc for item in declaration.columns), name
        names = [item.name for item in declaration.fields()]
        assert len(set(names)) == len(names)
        assert names[-1] == f"is_{name}_covered"
    with pytest.raises(CatalogError, match="declared are"):
        catalogs.get_declaration("none")


@pytest.mark.parametrize(
    ("name", "schema"), [("sim_galaxies", "GALAXIES"), ("sim_variables", "VARIABLES"), ("sim_agn", "AGN")]
)
def test_simulated_catalogs_are_declared_as_they_are_written(name: str, schema: str) -> None:
    from pipeline.simulate import truth

    written = getattr(truth, schema)
    declaration = catalogs.get_declaration(name)
    declared = {item.source: item.arrow_type for item in declaration.columns}
    assert {**declared, declaration.ra: pa.float64(), declaration.dec: pa.float64()} == {
        field.name: field.type for field in written
    }


def test_own_declarations(tmp_path: Path) -> None:
    text = 'doc = "d"\nsource = "s"\nlicence = "l"\nra = "a"\ndec = "b"\nradius_arcsec = 5\n'
    (tmp_path / "own.toml").write_text('name = "own"\n' + text)
    (tmp_path / "gcvs.toml").write_text('name = "gcvs"\n' + text)
    loaded = catalogs.load_declarations([tmp_path])
    assert loaded["own"].radius_arcsec == 5.0
    assert loaded["gcvs"].ra == "a"  # the user's own replaces the shipped one
    assert catalogs.load_declarations([tmp_path / "own.toml"])["gcvs"].ra == "ra"
    (tmp_path / "bad.toml").write_text("name = ")
    for place, message in [(tmp_path, "cannot be read"), (tmp_path / "none", "does not exist")]:
        with pytest.raises(CatalogError, match=message) as caught:
            catalogs.load_declarations([place])
        _line(caught)


def test_column_types() -> None:
    assert CatalogColumn("a", "int32", "A").arrow_type == pa.int32()
    fields = {item.name: item for item in declare().fields()}
    assert list(fields)[:3] == ["xm_stars_id", "xm_stars_kind", "xm_stars_mag"]
    assert fields["xm_stars_mag"].metadata == {b"unit": b"mag", b"doc": b"stars: V magnitude"}
    assert not fields["is_stars_covered"].nullable


# ------------------------------------------------------------------------------------------------ command, real data
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
    for name in ("list", "build", "info", "verify"):
        shown = runner.invoke(command, [name, "--help"]).output
        assert "Example" in shown


@pytest.mark.parametrize("name", REAL)
def test_real_catalog(name: str, shared_data: Path, tmp_path: Path) -> None:
    files, rows, without_position = REAL[name]
    paths = [shared_data / "catalogs" / file for file in files]
    catalog = catalogs.build(catalogs.get_declaration(name), paths, tmp_path / name)
    assert (catalog.rows, catalog.rows_without_position) == (rows, without_position)
    catalog.verify()
    table = catalog.take(np.arange(0, rows, max(1, rows // 1000)), [item.name for item in catalog.declaration.columns])
    for column in table.columns:
        assert column.null_count < len(column)
        if pa.types.is_string(column.type):
            assert all(text is None or (text and text == text.strip()) for text in column.to_pylist())
