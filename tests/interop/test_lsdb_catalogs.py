"""LSDB opens the catalogs we build, with margin, and finds our matches; we open what LSDB writes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_samples import declare, write_uniform

from pipeline import catalogs
from pipeline.catalogs import tiles
from pipeline.healpix import ang2pix
from pipeline.xmatch import nearest

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("interop")]

ROWS = 40_000
RADIUS_ARCSEC = 1200.0


@pytest.fixture(scope="module")
def lsdb() -> Any:
    lsdb = pytest.importorskip("lsdb")
    import dask

    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield lsdb


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> catalogs.Catalog:
    folder = tmp_path_factory.mktemp("lsdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.tile, "__defaults__", (1_500,))
        write_uniform(folder / "stars.parquet", ROWS)
        declaration = declare(radius_arcsec=RADIUS_ARCSEC, margin_arcsec=1800)
        return catalogs.build(declaration, folder / "stars.parquet", folder / "stars")


@pytest.fixture(scope="module")
def alerts(built: catalogs.Catalog) -> pd.DataFrame:
    """Alerts near sources, many of them across the edge of a tile from the source, at the poles and about RA 0."""
    rng = np.random.default_rng(7)
    n = 6000
    row = rng.integers(0, ROWS, n)
    ra = built.index.ra[row] + rng.normal(0, 0.2, n)
    dec = np.clip(built.index.dec[row] + rng.normal(0, 0.2, n), -90, 90)
    ra[:4], dec[:4] = (0.0, 359.99999, 10.1, 200.1), (0.0001, 0.0001, 89.99999, -89.99999)
    ra[4:104], dec[4:104] = rng.normal(0, 0.2, 100), rng.uniform(-60, 60, 100)
    margins = [
        pq.ParquetFile(file).read(["ra", "dec"]) for file in built.path.glob("*arcs/dataset/Norder*/*/*.parquet")
    ]
    edge = pa.concat_tables(margins).to_pandas().sample(1000, random_state=8)
    ra[104:1104], dec[104:1104] = (edge[name] + rng.normal(0, 0.2, 1000) for name in ("ra", "dec"))
    dec = np.clip(dec, -90, 90)
    return pd.DataFrame({"alert_id": np.arange(n), "ra": np.mod(ra, 360), "dec": dec})


def test_it_is_a_valid_collection(lsdb: Any, built: catalogs.Catalog) -> None:
    from hats.io.validation import is_valid_catalog

    assert is_valid_catalog(built.path, strict=True)
    for table in ("stars", "stars_1800arcs"):
        assert is_valid_catalog(built.path / table, strict=True)


def test_lsdb_opens_it_with_margin_and_searches_cones(lsdb: Any, built: catalogs.Catalog) -> None:
    catalog = lsdb.open_catalog(built.path)
    assert len(catalog) == built.rows
    assert list(catalog.columns) == ["ra", "dec", "number", "kind", "mag"]
    assert catalog.margin is not None
    assert catalog.margin.hc_structure.catalog_info.margin_threshold == 1800.0
    whole = catalog.compute()
    names = ["number", "kind", "mag"]
    ours = built.take(np.arange(built.rows), names).to_pandas()
    theirs = whole.sort_index(kind="stable")[names].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        theirs.sort_values("number", ignore_index=True).astype(ours.dtypes),
        ours.sort_values("number", ignore_index=True),
    )
    for ra, dec in ((0.0, 0.0), (10.0, 89.9), (200.0, -89.9), (120.0, 41.8)):
        cone = catalog.cone_search(ra, dec, 7200.0).compute()
        pairs = nearest([ra] * 1, [dec], 7200.0, built.index)
        assert len(cone) == pairs.n_neighbours[0] > 0


def test_crossmatch_gives_our_matches(lsdb: Any, built: catalogs.Catalog, alerts: pd.DataFrame) -> None:
    left = lsdb.from_dataframe(alerts, ra_column="ra", dec_column="dec", catalog_name="alerts", margin_threshold=None)
    right = lsdb.open_catalog(built.path)
    found = left.crossmatch(
        right, n_neighbors=1, radius_arcsec=RADIUS_ARCSEC, suffixes=("_alert", "_star"), suffix_method="all_columns"
    ).compute()
    ours = nearest(alerts["ra"], alerts["dec"], RADIUS_ARCSEC, built.index)
    matched = ours.row >= 0
    numbers = built.take(ours.row[matched], ["number"])["number"].to_numpy()
    theirs = dict(zip(found["alert_id_alert"].astype(int), found["number_star"].astype(int), strict=True))
    assert theirs == dict(zip(np.flatnonzero(matched).tolist(), numbers.tolist(), strict=True))
    # The test means something only if many of the matches lie in another tile than their alert.
    spread = catalogs.open_hats(built.path).tiles
    own = _tile_of(spread, ang2pix(29, alerts["ra"], alerts["dec"])[matched])
    other = _tile_of(spread, built.index.healpix_29[ours.row[matched]])
    assert (own != other).sum() > 50
    assert matched[:4].sum() >= 3


def test_a_match_across_the_edge_of_sky_without_rows(lsdb: Any, tmp_path: Path) -> None:
    """The alert lies where the catalog has no row at all, its star beyond the edge of the base pixel at RA 90."""
    table = pa.table(
        {"RA": [90.0001, 200.0], "DE": [70.0, -30.0], "No": [1, 2], "Type": ["a", "b"], "Vmag": [1.0, 2.0]}
    )
    pq.write_table(table, tmp_path / "two.parquet")
    catalogs.build(declare(), tmp_path / "two.parquet", tmp_path / "two")
    from hats.io.validation import is_valid_catalog

    assert is_valid_catalog(tmp_path / "two", strict=True)
    alerts = pd.DataFrame({"alert_id": [0, 1], "ra": [89.9999, 200.0], "dec": [70.0, -30.0]})
    left = lsdb.from_dataframe(alerts, ra_column="ra", dec_column="dec", catalog_name="alerts", margin_threshold=None)
    right = lsdb.open_catalog(tmp_path / "two")
    assert len(right) == len(right.compute()) == 2
    options = {"suffixes": ("_alert", "_star"), "suffix_method": "all_columns"}
    found = left.crossmatch(right, n_neighbors=1, radius_arcsec=2.0, **options).compute()
    assert sorted(zip(found["alert_id_alert"], found["number_star"], strict=True)) == [(0, 1), (1, 2)]


def _tile_of(spread: tuple[tuple[int, int], ...], cells: np.ndarray) -> np.ndarray:
    starts = np.array([pixel << (2 * (29 - order)) for order, pixel in spread])
    return np.searchsorted(starts, cells, side="right")


def test_we_open_what_lsdb_writes(lsdb: Any, built: catalogs.Catalog, alerts: pd.DataFrame, tmp_path: Path) -> None:
    stars = built.take(np.arange(built.rows), ["number", "kind"]).to_pandas()
    stars["ra"], stars["dec"] = built.index.ra, built.index.dec
    catalog = lsdb.from_dataframe(stars, ra_column="ra", dec_column="dec", catalog_name="theirs", partition_rows=2000)
    catalog.write_catalog(tmp_path / "theirs")
    opened = catalogs.open_hats(tmp_path / "theirs")
    found = catalogs.match_parquet(opened, alerts["ra"], alerts["dec"], RADIUS_ARCSEC, ["number", "kind"])
    ours = nearest(alerts["ra"], alerts["dec"], RADIUS_ARCSEC, built.index)
    np.testing.assert_array_equal(found.nearest.n_neighbours, ours.n_neighbours)
    expected = built.take(ours.row[ours.row >= 0], ["number", "kind"]).to_pylist()
    assert found.columns.to_pylist() == expected
    again = catalogs.build(
        catalogs.declare_table("theirs", tmp_path / "theirs", "ra", "dec", 2.0), tmp_path / "theirs", tmp_path / "again"
    )
    assert again.rows == built.rows
