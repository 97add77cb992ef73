"""What declarations of catalogs say, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from catalog_samples import declare

from pipeline import catalogs
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogColumn, HostColumns, Motion, parse_declaration

SHIPPED = {
    *("simbad", "gaia_dr3", "gaia_dr3_variability", "vsx", "gcvs", "spicy", "x3hsp", "x4lac", "mangrove", "tns"),
    *("milliquas", "openngc", "legacy_photoz", "ned_lvs", "glade_plus", "allwise", "ps1_psc"),
    *("sim_galaxies", "sim_variables", "sim_agn"),
}


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
    assert "stars.toml" in str(caught.value)


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
    assert set(shipped) >= SHIPPED
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
        assert "\n" not in str(caught.value)


def test_column_types() -> None:
    assert CatalogColumn("a", "int32", "A").arrow_type == pa.int32()
    fields = {item.name: item for item in declare().fields()}
    assert list(fields)[:3] == ["xm_stars_id", "xm_stars_kind", "xm_stars_mag"]
    assert fields["xm_stars_mag"].metadata == {b"unit": b"mag", b"doc": b"stars: V magnitude"}
    assert not fields["is_stars_covered"].nullable
