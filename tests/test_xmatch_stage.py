"""The cross-match as a column group: nulls, coverage, partitions, and real catalogs against astropy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from pipeline import catalogs, healpix
from pipeline.stages import xmatch as stage
from pipeline.xmatch import CatalogDeclaration, parse_declaration


def alerts_at(ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    return pa.table({"ra": ra, "dec": dec, "healpix_29": healpix.ang2pix(29, ra, dec)})


@pytest.fixture
def declaration() -> CatalogDeclaration:
    return parse_declaration(
        {
            **dict.fromkeys(("doc", "source", "licence"), "test"),
            **{"name": "gal", "ra": "ra", "dec": "dec", "radius_arcsec": 60.0, "id": "name"},
            "column": [
                {"name": "dist_mpc", "type": "float64", "unit": "Mpc", "doc": "distance"},
                {"name": "name", "doc": "name"},
            ],
        },
        "gal.toml",
    )


@pytest.fixture
def catalog(declaration: CatalogDeclaration, tmp_path: Path) -> catalogs.Catalog:
    table = pa.table(
        {
            "ra": [10.0, 10.01, 200.0, 0.0],
            "dec": [0.0, 0.0, 30.0, 90.0],
            "name": ["a", "b", None, "pole"],
            "dist_mpc": [1.0, 2.0, 3.0, None],
        }
    )
    pq.write_table(table, tmp_path / "gal.parquet")
    return catalogs.build(declaration, tmp_path / "gal.parquet", tmp_path / "gal")


def test_columns_and_nulls(catalog: catalogs.Catalog, declaration: CatalogDeclaration) -> None:
    ra, dec = np.array([10.001, 10.009, 200.0, 77.0, 250.0]), np.array([0.0, 0.0, 30.01, 5.0, 89.99999])
    out = stage.match(alerts_at(ra, dec), catalog, declaration)
    assert out.schema.equals(pa.schema(stage.produces(declaration)), check_metadata=True)
    assert out.column_names == [
        "xm_gal_id",
        "xm_gal_dist_mpc",
        "xm_gal_separation_arcsec",
        "xm_gal_n_neighbours",
        "is_gal_covered",
    ]
    assert out["xm_gal_id"].to_pylist() == ["a", "b", None, None, "pole"]
    assert out["xm_gal_dist_mpc"].to_pylist() == [1.0, 2.0, 3.0, None, None]
    separation = [pytest.approx(item, rel=1e-6) if item else None for item in (3.6, 3.6, 36.0, None, 0.036)]
    assert out["xm_gal_separation_arcsec"].to_pylist() == separation
    assert out["xm_gal_n_neighbours"].to_pylist() == [2, 2, 1, 0, 1]
    assert out["is_gal_covered"].to_pylist() == [True] * 5


def test_every_alert_of_one_source_is_matched(catalog: catalogs.Catalog, declaration: CatalogDeclaration) -> None:
    """Many detections of one source in one table: each gets it, whatever stands beside it."""
    out = stage.match(alerts_at(np.full(50, 10.001), np.linspace(0, 0.001, 50)), catalog, declaration)
    assert out["xm_gal_id"].to_pylist() == ["a"] * 50


def test_outside_the_footprint_is_null(declaration: CatalogDeclaration, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ra": [10.0], "dec": [0.0], "name": ["a"], "dist_mpc": [1.0]}), tmp_path / "gal.parquet")
    covered = healpix.ranges_of(12, healpix.ang2pix(12, [10.0], [0.0]))
    built = catalogs.build(declaration, tmp_path / "gal.parquet", tmp_path / "gal", covered=covered)
    inside, outside = (10.0, 0.0), (300.0, 0.0)
    alerts = alerts_at(*np.array([inside, outside]).T)
    out = stage.match(alerts, built, declaration)
    assert out["is_gal_covered"].to_pylist() == [True, False]
    assert out["xm_gal_n_neighbours"].to_pylist() == [1, None]  # not consulted is not "none there"
    nowhere = stage.match(alerts_at(np.array([np.nan]), np.array([0.0])), built, declaration)
    assert nowhere["is_gal_covered"].to_pylist() == [False]
    assert nowhere["xm_gal_id"].to_pylist() == [None]


def test_partition_invariance(catalog: catalogs.Catalog, declaration: CatalogDeclaration) -> None:
    rng = np.random.default_rng(2)
    table = alerts_at(rng.normal(10.005, 0.01, 200), rng.normal(0, 0.01, 200))
    whole = stage.match(table, catalog, declaration)
    parts = [stage.match(table.slice(start, 60), catalog, declaration) for start in range(0, 200, 60)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    assert stage.match(chunked, catalog, declaration).combine_chunks().equals(whole.combine_chunks())
    turned = rng.permutation(200)
    assert stage.match(table.take(turned), catalog, declaration).equals(whole.take(turned).combine_chunks())
    assert 0 < whole["xm_gal_id"].null_count < 200


def test_no_rows(catalog: catalogs.Catalog, declaration: CatalogDeclaration) -> None:
    out = stage.match(alerts_at(np.array([]), np.array([])), catalog, declaration)
    assert out.num_rows == 0
    assert out.schema.equals(pa.schema(stage.produces(declaration)))


@pytest.mark.parametrize(("name", "file"), [("mangrove", "mangrove.parquet"), ("gcvs", "gcvs.parquet")])
def test_real_catalog_equals_astropy(name: str, file: str, shared_data: Path, tmp_path: Path) -> None:
    declaration = catalogs.get_declaration(name)
    built = catalogs.build(declaration, shared_data / "catalogs" / file, tmp_path / name)
    rng = np.random.default_rng(1)
    beside = rng.integers(0, built.rows, 3000)
    scatter = declaration.radius_arcsec / 3600
    ra = built.index.ra[beside] + rng.normal(0, scatter, 3000)
    dec = np.clip(built.index.dec[beside] + rng.normal(0, scatter, 3000), -90, 90)
    out = stage.match(alerts_at(ra, dec), built, declaration)
    sources = SkyCoord(built.index.ra, built.index.dec, unit="deg")
    row, separation, _ = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(sources)
    matched = separation.arcsec <= declaration.radius_arcsec
    ours = out[f"xm_{name}_separation_arcsec"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(~np.isnan(ours), matched)
    np.testing.assert_allclose(ours[matched], separation.arcsec[matched], rtol=1e-8, atol=1e-8)
    assert 300 < matched.sum() < 3000
    column = declaration.columns[-1].name
    theirs = built.take(row[matched], [column])[column]
    mine = out[f"xm_{name}_{column}"].filter(pa.array(matched))
    # Twins at one place may be told apart only by their row; their separations are equal.
    differ = [i for i, (a, b) in enumerate(zip(mine.to_pylist(), theirs.to_pylist(), strict=True)) if a != b]
    assert len(differ) < 5


@pytest.mark.parametrize(
    ("name", "file", "column", "theirs"),
    [
        ("mangrove", "mangrove.parquet", "hyperleda_name", "mangrove_HyperLEDA_name"),
        ("vsx", "vsx_compact.parquet", "type", "vsx_Type"),
    ],
)
def test_real_alerts_match_as_another_broker_found(
    name: str, file: str, column: str, theirs: str, shared_data: Path, tmp_path: Path
) -> None:
    """Rubin alerts of 2026-03-09 as another broker published them, with its own matches with the same catalogs."""
    built = catalogs.build(catalogs.get_declaration(name), shared_data / "catalogs" / file, tmp_path / name)
    files = sorted((shared_data / "alerts" / "lsst" / "fink_transfer_2026-03-10").glob("*.parquet"))
    rows = [row for item in files for row in pq.read_table(item, columns=["diaSource", "xm"]).to_pylist()]
    ra, dec = (np.array([row["diaSource"][key] for row in rows]) for key in ("ra", "dec"))
    out = stage.match(alerts_at(ra, dec), built, built.declaration)
    assert out[f"xm_{name}_{column}"].to_pylist() == [row["xm"][theirs] for row in rows]
    assert 0 < out[f"xm_{name}_separation_arcsec"].null_count < len(rows) == 74


def test_all_catalogs_in_one_pass(catalog: catalogs.Catalog, declaration: CatalogDeclaration, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ra": [10.0], "dec": [0.0], "name": ["b"], "dist_mpc": [1.0]}), tmp_path / "b.parquet")
    covered = healpix.ranges_of(5, healpix.ang2pix(5, [10.0], [0.0]))
    other = catalogs.build(declaration, tmp_path / "b.parquet", tmp_path / "b", covered=covered)
    rng = np.random.default_rng(3)
    table = alerts_at(rng.normal(10.0, 3, 300) % 360, rng.normal(0, 3, 300))
    shared = stage.OnePass()
    tables = [stage.match(table, single, declaration, shared) for single in (catalog, other)]
    for made, single in zip(tables, (catalog, other), strict=True):
        assert made.equals(stage.match(table, single, declaration))
    assert 0 < tables[1]["xm_gal_n_neighbours"].null_count < 300


def test_one_pass_tells_tables_apart_and_prepares_each_once() -> None:
    table = alerts_at(np.array([10.0, 20.0, 30.0]), np.zeros(3))
    shared = stage.OnePass()
    first = shared.positions(table)
    assert shared.positions(table.select(["ra", "dec", "healpix_29"])) is first
    assert shared.positions(table.slice(1)).ra.tolist() == [20.0, 30.0]
    assert shared.positions(table.slice(0, 2)).ra.tolist() == [10.0, 20.0]
    for start in (40.0, 50.0, 60.0):  # a table that is gone may leave its memory to the next
        other = alerts_at(np.array([start, 1.0, 2.0]), np.zeros(3))
        assert shared.positions(other).ra[0] == start
        del other
    assert len(shared.positions(alerts_at(np.array([]), np.array([])))) == 0
    chunked = pa.concat_tables([table, table])
    assert len(shared.positions(chunked)) == 6


@pytest.fixture
def moving(tmp_path: Path) -> catalogs.Catalog:
    """A star that moves 10 arcsec a year to the north, one that is still, one of unknown motion; positions of 2016."""
    declaration = parse_declaration(
        {
            **dict.fromkeys(("doc", "source", "licence"), "test"),
            **{"name": "stars", "ra": "ra", "dec": "dec", "radius_arcsec": 2.0, "id": "name", "epoch": 2016.0},
            "motion": {"pmra": "pmra", "pmdec": "pmdec"},
            "column": [{"name": "name", "doc": "name"}],
        },
        "stars.toml",
    )
    table = pa.table(
        {
            "ra": [10.0, 10.1, 10.2],
            "dec": [0.0, 0.0, 0.0],
            "pmra": [0.0, 0.0, None],
            "pmdec": pa.array([10_000.0, 0.0, 5000.0]),
            "name": ["fast", "still", "unknown"],
        }
    )
    pq.write_table(table, tmp_path / "stars.parquet")
    return catalogs.build(declaration, tmp_path / "stars.parquet", tmp_path / "stars")


def test_moving_sources_are_matched_at_the_alerts_time(moving: catalogs.Catalog) -> None:
    declaration = moving.declaration
    assert stage.requires(declaration) == ("ra", "dec", "healpix_29", "mjd")
    north = 80.0 / 3600.0  # eight years on
    ra = np.array([10.0, 10.0, 10.0, 10.1, 10.2])
    dec = np.array([north, 0.0, north, 0.0, 0.0])
    mjd = np.array([60310.0, 60310.0, 57388.0, 60310.0, 60310.0])  # 2024.0 and 2016.0, TAI
    alerts = alerts_at(ra, dec).append_column("mjd", pa.array(mjd))
    out = stage.match(alerts, moving, declaration)
    assert out.schema.equals(pa.schema(stage.produces(declaration)), check_metadata=True)
    assert out["xm_stars_id"].to_pylist() == ["fast", None, None, "still", "unknown"]
    assert out["xm_stars_n_neighbours"].to_pylist() == [1, 0, 0, 1, 1]
    assert out["xm_stars_separation_arcsec"][0].as_py() < 0.05  # 2024.0 is a few hours off
    assert out["xm_stars_separation_arcsec"].to_pylist()[3:] == [0.0, 0.0]
    parts = [stage.match(alerts.slice(start, 2), moving, declaration) for start in (0, 2, 4)]
    assert pa.concat_tables(parts).combine_chunks().equals(out.combine_chunks())
    assert stage.match(alerts, moving, declaration, stage.OnePass()).equals(out)
    assert stage.match(alerts.slice(0, 0), moving, declaration).num_rows == 0


def test_a_catalog_at_rest_needs_no_time(catalog: catalogs.Catalog, declaration: CatalogDeclaration) -> None:
    assert stage.requires(declaration) == stage.REQUIRES == ("ra", "dec", "healpix_29")
    assert catalog.classes("motion") is None
