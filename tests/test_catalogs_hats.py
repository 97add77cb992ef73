"""HATS on disk: tiles, margins against brute force, foreign catalogs, and matches straight from Parquet."""

from __future__ import annotations

import shutil
from pathlib import Path

import healpy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_samples import declare, write_uniform
from numpy.typing import NDArray

from pipeline import catalogs, healpix
from pipeline.catalogs import hats_writing, tiles
from pipeline.errors import CatalogError
from pipeline.xmatch import build_index, nearest

ROWS = 20_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> catalogs.Catalog:
    """A catalog in tiles of at most 1,500 rows and row groups of 300."""
    folder = tmp_path_factory.mktemp("hats")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.tile, "__defaults__", (1_500,))
        patch.setattr(hats_writing, "ROW_GROUP", 300)
        write_uniform(folder / "stars.parquet", ROWS)
        return catalogs.build(declare(margin_arcsec=3600), folder / "stars.parquet", folder / "stars")


def _files(folder: Path) -> dict[tuple[int, int], pa.Table]:
    found = {}
    for file in sorted((folder / "dataset").rglob("Npix=*.parquet")):
        order, pixel = int(file.parts[-3][7:]), int(file.stem[5:])
        assert file.parts[-2] == f"Dir={pixel // 10_000 * 10_000}"
        found[order, pixel] = pq.ParquetFile(file).read()
    return found


def _alerts(catalog: catalogs.Catalog, n: int = 3000, seed: int = 1) -> tuple[NDArray, NDArray]:
    """Positions near sources, near the edges of tiles, at the poles, across RA 0, and nowhere."""
    rng = np.random.default_rng(seed)
    row = rng.integers(0, catalog.rows, n)
    ra = catalog.index.ra[row] + rng.normal(0, 0.4, n)
    dec = np.clip(catalog.index.dec[row] + rng.normal(0, 0.4, n), -90, 90)
    ra[:6], dec[:6] = (0.0, 359.99999, 123.0, 321.0, np.nan, 10.0), (0.0, 0.0, 90.0, -90.0, 1.0, 91.0)
    return ra, dec


# ------------------------------------------------------------------------------------------------ tiles
@pytest.mark.parametrize("most", [1, 50, 10_000])
def test_tiles_cover_every_row_once_and_are_as_large_as_may_be(most: int) -> None:
    rng = np.random.default_rng(2)
    ra = np.concatenate([rng.uniform(0, 360, 3000), rng.normal(80, 0.01, 3000)])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 3000))), rng.normal(-60, 0.01, 3000)])
    index, _ = build_index(ra, dec)
    found = tiles.tile(index.healpix_29, most)
    assert [at.start for at in found] == [0, *(at.stop for at in found[:-1])]
    assert found[-1].stop == 6000
    assert sum(healpix.cell_area_deg2(at.order) for at in found) == pytest.approx(
        healpix.ranges_area_deg2(healpix.ALL_SKY)
    )
    for at in found:
        cells = healpy.ang2pix(1 << at.order, index.ra[at.start : at.stop], index.dec[at.start : at.stop], True, True)
        assert set(cells) <= {at.pixel}
        assert at.stop - at.start <= most or at.order == 17
        if at.order:  # its parent would hold too many
            low, high = (np.array([0, 1]) + (at.pixel >> 2)) << (2 * (30 - at.order))
            assert np.diff(np.searchsorted(index.healpix_29, [low, high]))[0] > most


def test_many_rows_at_one_place_end_in_one_tile() -> None:
    index, _ = build_index(np.full(100, 10.0), np.full(100, 20.0))
    assert [(at.order, at.stop) for at in tiles.tile(index.healpix_29, 10) if at.start < at.stop] == [(17, 100)]
    assert [at.order for at in tiles.tile(index.healpix_29[:0])] == [0] * 12


@pytest.mark.parametrize("margin_arcsec", [10.0, 600.0, 7200.0, 200_000.0])
@pytest.mark.parametrize("where", [(0, 0), (0, 5), (3, 100), (6, 20_000), (11, 5)])
def test_margins_hold_what_lies_within_them_and_no_more(margin_arcsec: float, where: tuple[int, int]) -> None:
    """Against the distance to a border that is followed point by point, for rows scattered about it."""
    order, pixel = where
    # healpy gives the border of a pixel with any number of points a side.
    border = healpy.boundaries(1 << order, pixel, step=4096 if order < 3 else 512, nest=True).T
    rng = np.random.default_rng(3)
    around = border[rng.integers(0, len(border), 4000)]
    offset = rng.normal(0, 1, around.shape) * np.radians(margin_arcsec / 3600) * rng.uniform(0, 2, (4000, 1))
    points = around + offset
    points /= np.linalg.norm(points, axis=1)[:, None]
    ra, dec = np.degrees(np.arctan2(points[:, 1], points[:, 0])), np.degrees(np.arcsin(points[:, 2]))
    index, _ = build_index(ra, dec)
    shift = 2 * (29 - order)
    start, stop = np.searchsorted(index.healpix_29, [pixel << shift, (pixel + 1) << shift]).tolist()
    at = tiles.Tile(order, pixel, start, stop)
    rows = tiles.margin_rows(at, index.healpix_29, index.ra, index.dec, margin_arcsec)
    assert (np.diff(rows) > 0).all()
    assert not ((rows >= start) & (rows < stop)).any()
    vectors = healpy.ang2vec(index.ra, index.dec, lonlat=True)
    chord = np.min(
        [np.linalg.norm(vectors - corner, axis=1) for corner in border[:: max(1, len(border) // 4096)]], axis=0
    )
    if len(border) > 4096:  # then with the finest corners, near the nearest coarse one only
        from scipy.spatial import cKDTree

        chord = cKDTree(border).query(vectors)[0]
    distance = np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1))) * 3600
    step = np.degrees(np.linalg.norm(border - np.roll(border, 1, axis=0), axis=1).max()) * 3600
    outside = np.ones(len(index), dtype=bool)
    outside[start:stop] = False
    # A corner is up to half a step away from the nearest place of the border.
    slack = np.hypot(margin_arcsec, step / 2) - margin_arcsec
    must = outside & (distance <= margin_arcsec)
    may = outside & (distance <= 1.01 * margin_arcsec + slack + 0.01)
    chosen = np.zeros(len(index), dtype=bool)
    chosen[rows] = True
    assert must.sum() > 100
    assert not (must & ~chosen).any()
    assert not (chosen & ~may).any()


def test_written_tiles_and_margins(built: catalogs.Catalog) -> None:
    primary, margin = _files(built.path / "stars"), _files(built.path / "stars_3600arcs")
    whole = pa.concat_tables(primary[key] for key in sorted(primary, key=lambda key: key[1] << (2 * (29 - key[0]))))
    assert len(primary) > 12
    assert max(len(table) for table in primary.values()) <= 1500
    np.testing.assert_array_equal(whole["_healpix_29"].to_numpy(), built.index.healpix_29)
    np.testing.assert_array_equal(whole["ra"].to_numpy(), built.index.ra)
    names = [item.name for item in built.declaration.columns]
    assert whole.select(names).equals(built.take(np.arange(built.rows), names).combine_chunks())
    assert whole.schema.field("mag").metadata[b"unit"] == b"mag"
    # Each margin holds rows of other tiles only, each within a degree of its tile, and all rows of its neighbours so.
    for (order, pixel), table in margin.items():
        assert (order, pixel) in primary
        own = healpix.ang2pix(order, table["ra"].to_numpy(), table["dec"].to_numpy())
        assert pixel not in own
        assert (np.diff(table["_healpix_29"].to_numpy()) >= 0).all()
    listed = (built.path / "stars" / "partition_info.csv").read_text().splitlines()
    assert listed[0] == "Norder,Npix"
    assert {tuple(map(int, line.split(","))) for line in listed[1:]} == set(primary)


# ------------------------------------------------------------------------------------------------ reading
def test_open_a_collection_or_its_table(built: catalogs.Catalog) -> None:
    for place in (built.path, built.path / "stars"):
        opened = catalogs.open_hats(place)
        assert (opened.name, opened.ra, opened.dec, opened.healpix) == ("stars", "ra", "dec", "_healpix_29")
        assert opened.rows == built.rows
        assert len(opened.files()) == len(opened.tiles)
        assert opened.schema.names == ["_healpix_29", "ra", "dec", "number", "kind", "mag"]
    with pytest.raises(CatalogError, match="type margin"):
        catalogs.open_hats(built.path / "stars_3600arcs")


@pytest.mark.parametrize("radius", [1.0, 1500.0, 200_000.0])
def test_match_straight_from_parquet_is_that_of_the_index(built: catalogs.Catalog, radius: float) -> None:
    ra, dec = _alerts(built, 3000 if radius < 10_000 else 200)
    expected = nearest(ra, dec, radius, built.index)
    found = catalogs.match_parquet(catalogs.open_hats(built.path), ra, dec, radius, ["number", "kind"])
    np.testing.assert_array_equal(found.nearest.row, expected.row)
    np.testing.assert_array_equal(found.nearest.separation_arcsec, expected.separation_arcsec)
    np.testing.assert_array_equal(found.nearest.n_neighbours, expected.n_neighbours)
    matched = expected.row[expected.row >= 0]
    assert found.columns.equals(built.take(matched, ["number", "kind"]))
    if radius > 1000:
        assert (expected.row >= 0).sum() > 100


def test_match_with_a_radius_for_every_alert(built: catalogs.Catalog) -> None:
    ra, dec = _alerts(built)
    radius = np.random.default_rng(4).uniform(-10, 3000, len(ra))
    radius[10] = np.nan
    expected = nearest(ra, dec, radius, built.index)
    found = catalogs.match_parquet(catalogs.open_hats(built.path), ra, dec, radius)
    np.testing.assert_array_equal(found.nearest.row, expected.row)
    assert found.columns.num_columns == 0
    nobody = catalogs.match_parquet(catalogs.open_hats(built.path), ra[4:6], dec[4:6], 10.0, ["kind"])
    assert nobody.nearest.row.tolist() == [-1, -1]
    assert (nobody.groups_read, nobody.columns.num_rows) == (0, 0)
    assert nobody.columns.schema.names == ["kind"]


def test_only_row_groups_near_alerts_are_read(built: catalogs.Catalog) -> None:
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(40, 44, 500), rng.uniform(10, 14, 500)
    found = catalogs.match_parquet(catalogs.open_hats(built.path), ra, dec, 600.0, ["number"])
    assert (found.nearest.row >= 0).any()
    assert 0 < found.groups_read <= 6
    assert found.groups >= ROWS // 300


def foreign(built: catalogs.Catalog, folder: Path, change: str) -> Path:
    """A copy of the primary table alone, as another tool may have written it."""
    shutil.copytree(built.path / "stars", folder)
    properties = (folder / "hats.properties").read_text()
    if change == "no cells":
        properties = properties.replace("hats_col_healpix=_healpix_29\n", "").replace("hats_col_healpix_order=29\n", "")
        for file in folder.rglob("*.parquet"):
            pq.write_table(pq.ParquetFile(file).read().drop_columns("_healpix_29"), file)
        shutil.copy(next(folder.rglob("*.parquet")), folder / "dataset" / "_common_metadata")
    elif change == "other names":
        properties = properties.replace("=ra\n", "=raj2000\n").replace("=dec\n", "=dej2000\n")
        properties = properties.replace("_healpix_29", "cell")
        for file in [*folder.rglob("*.parquet"), folder / "dataset" / "_common_metadata"]:
            if file.name == "_common_metadata":
                file.unlink()
                continue
            table = pq.ParquetFile(file).read()
            names = {"ra": "raj2000", "dec": "dej2000", "_healpix_29": "cell"}
            table = table.rename_columns([names.get(name, name) for name in table.column_names])
            ra = table["raj2000"].to_numpy()
            at = table.column_names.index("raj2000")
            table = table.set_column(at, "raj2000", pa.array(np.where(ra > 180, ra - 360, ra)))  # -180 to 180
            shuffled = np.random.default_rng(6).permutation(len(table))
            pq.write_table(table.take(pa.array(shuffled)), file, row_group_size=200)
    elif change == "folders":
        properties = properties.replace("suffix=.parquet", "suffix=/")
        for file in list(folder.rglob("Npix=*.parquet")):
            table = pq.ParquetFile(file).read()
            file.unlink()
            place = file.with_suffix("")
            place.mkdir()
            pq.write_table(table.slice(0, len(table) // 2), place / "a.parquet")
            pq.write_table(table.slice(len(table) // 2), place / "b.parquet")
    elif change == "no list":
        (folder / "partition_info.csv").unlink()
    (folder / "hats.properties").unlink()
    (folder / "properties").write_text("#HATS catalog\n! another comment\n" + properties)
    return folder


@pytest.mark.parametrize("change", ["", "no cells", "other names", "folders", "no list"])
def test_foreign_catalogs_are_built_and_matched(built: catalogs.Catalog, tmp_path: Path, change: str) -> None:
    opened = catalogs.open_hats(foreign(built, tmp_path / "foreign", change))
    ra, dec = _alerts(built, 1000)
    expected = nearest(ra, dec, 1500.0, built.index)
    if change == "no cells":
        assert opened.healpix is None
        with pytest.raises(CatalogError, match=r"no column of order-29 HEALPix cells.*build it"):
            catalogs.match_parquet(opened, ra, dec, 1500.0)
    else:
        found = catalogs.match_parquet(opened, ra, dec, 1500.0, ["number"])
        np.testing.assert_allclose(found.nearest.separation_arcsec, expected.separation_arcsec, rtol=1e-9)
        np.testing.assert_array_equal(found.nearest.n_neighbours, expected.n_neighbours)
        numbers = built.take(expected.row[expected.row >= 0], ["number"])["number"]
        assert found.columns["number"].to_pylist() == numbers.to_pylist()
    # Built again from that folder it is the same catalog, whatever its files looked like.
    columns = [{"name": item.name, "type": item.type, "doc": item.doc} for item in built.declaration.columns]
    declaration = declare(ra=opened.ra, dec=opened.dec, column=columns)
    again = catalogs.build(declaration, tmp_path / "foreign", tmp_path / "again")
    order = np.argsort(again.take(np.arange(again.rows), ["number"])["number"].to_numpy())
    truth = np.argsort(built.take(np.arange(built.rows), ["number"])["number"].to_numpy())
    np.testing.assert_allclose(again.index.ra[order], built.index.ra[truth], rtol=1e-12)
    plain = catalogs.declare_table("plain", tmp_path / "foreign", opened.ra, opened.dec, 1.0)
    assert {item.name for item in plain.columns} == {"number", "kind", "mag", *({"cell"} & set(opened.schema.names))}


def test_what_is_no_hats_catalog(built: catalogs.Catalog, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"it has no hats\.properties"):
        catalogs.open_hats(tmp_path)
    folder = foreign(built, tmp_path / "foreign", "")
    good = (folder / "properties").read_text()
    cases = [
        (good.replace("dataproduct_type=object", "dataproduct_type=association"), "type association"),
        (good.replace("hats_col_ra=ra\n", ""), "does not name its position columns"),
        (good.replace("hats_col_ra=ra\n", "hats_col_ra=alpha\n"), "no column alpha"),
    ]
    for text, message in cases:
        (folder / "properties").write_text(text)
        with pytest.raises(CatalogError, match=message) as caught:
            catalogs.match_parquet(catalogs.open_hats(folder), [10.0], [10.0], 5.0)
        assert "\n" not in str(caught.value)
    (folder / "properties").write_text(good)
    with pytest.raises(CatalogError, match="no column colour"):
        catalogs.match_parquet(catalogs.open_hats(folder), [10.0], [10.0], 5.0, ["colour"])
    tile = catalogs.open_hats(folder).files()[0]
    tile.write_bytes(tile.read_bytes()[:100])
    with pytest.raises(CatalogError, match="is damaged"):
        catalogs.match_parquet(catalogs.open_hats(folder), built.index.ra[:5], built.index.dec[:5], 5.0)
    columns = [{"name": "kind", "type": "string"}]
    declaration = declare(
        ra=catalogs.open_hats(folder).ra, dec=catalogs.open_hats(folder).dec, id="kind", column=columns
    )
    with pytest.raises(CatalogError, match=f"is damaged.*{tile.name}"):
        catalogs.build(declaration, folder, tmp_path / "again")
    tile.unlink()
    (folder / "partition_info.csv").rename(folder / "kept.csv")
    with pytest.raises(CatalogError, match="tiles are missing"):  # nothing else tells that one is
        catalogs.build(declaration, folder, tmp_path / "again")
    (folder / "kept.csv").rename(folder / "partition_info.csv")
    with pytest.raises(CatalogError, match="lacks the file of tile"):
        catalogs.match_parquet(catalogs.open_hats(folder), built.index.ra[:5], built.index.dec[:5], 5.0)
    (folder / "partition_info.csv").write_text("Norder,Npix\n0,zero\n")
    with pytest.raises(CatalogError, match="list of tiles"):
        catalogs.open_hats(folder)
    collection = tmp_path / "collection"
    collection.mkdir()
    (collection / "collection.properties").write_text("hats_primary_table_url=../foreign\n")
    with pytest.raises(CatalogError, match="no primary table of its own"):
        catalogs.open_hats(collection)
