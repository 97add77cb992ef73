"""Building catalogs from every form of file, opening them, taking rows, motion and host classes, and the command."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_samples import (
    EXPECTED,
    STARS,
    declare,
    write_fits,
    write_parquet,
    write_text,
    write_uniform,
    write_votable,
)

from pipeline import catalogs, cosmology, healpix, xmatch
from pipeline.catalogs import building, payload
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration, parse_declaration


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


def contents_of(folder: Path) -> dict[str, bytes]:
    return {item.relative_to(folder).as_posix(): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


def test_build_is_repeatable_and_replaces(tmp_path: Path) -> None:
    file = write_parquet(tmp_path)
    first = catalogs.build(declare(), file, tmp_path / "stars")
    contents = contents_of(first.path)
    assert {"meta.json", "collection.properties", "stars/partition_info.csv", "index/columns.arrow"} <= set(contents)
    again = catalogs.build(declare(), file, tmp_path / "stars")
    assert contents_of(again.path) == contents
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


def test_take_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "BATCH", 10)
    monkeypatch.setattr(building, "BATCH", 7)  # what is written at once need not be what is kept as one
    n = 95
    table = write_uniform(tmp_path / "many.parquet", n)
    catalog = catalogs.build(declare(), tmp_path / "many.parquet", tmp_path / "many")
    order = catalog.take(np.arange(n), ["number"])["number"].to_numpy()
    np.testing.assert_array_equal(table["RA"].to_numpy()[order], catalog.index.ra)
    asked = np.random.default_rng(1).integers(0, n, 300)
    taken = catalog.take(asked, ["kind", "number"])
    assert taken.column_names == ["kind", "number"]
    np.testing.assert_array_equal(taken["number"].to_numpy(), order[asked])
    assert taken["kind"].to_pylist() == [("RR", "EA", "M")[number % 3] for number in order[asked]]
    assert catalog.take(np.array([], dtype=np.int64), ["number"]).num_rows == 0
    for row in (-1, n):
        with pytest.raises(IndexError, match=f"row {row} of {n}"):
            catalog.take(np.array([0, row]), ["number"])


def test_take_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    """Overwriting the batches that are not asked for changes nothing."""
    rows = 3 * payload.BATCH
    numbers = pa.table({"number": np.arange(rows)})
    with payload.PayloadWriter(tmp_path / "a.arrow", numbers.schema) as writer:
        for start in range(0, rows, 100_000):
            writer.write(numbers.slice(start, 100_000))
    opened_payload = payload.Payload(tmp_path / "a.arrow")
    size = (tmp_path / "a.arrow").stat().st_size
    with (tmp_path / "a.arrow").open("r+b") as file:  # the first two batches, 2 MiB each
        file.seek(4096)
        file.write(bytes(2 * payload.BATCH * 8 - 4096))
    assert (tmp_path / "a.arrow").stat().st_size == size
    asked = np.array([rows - 1, 2 * payload.BATCH + 5])
    assert opened_payload.take(asked, ["number"])["number"].to_pylist() == asked.tolist()


def test_an_empty_answer_is_a_catalog(tmp_path: Path) -> None:
    file = tmp_path / "none.csv"
    file.write_text("RA,DE,No,Type,Vmag\n")
    with pytest.raises(CatalogError, match="none of 0 rows"):
        catalogs.build(declare(), file, tmp_path / "stars")
    covered = healpix.ranges_of(3, [7, 8])
    catalog = catalogs.build(declare(), file, tmp_path / "stars", covered=covered, snapshot_date="2026-02-03")
    assert (catalog.rows, catalog.covered.tolist(), catalog.snapshot_date) == (0, covered.tolist(), "2026-02-03")
    assert catalog.take(np.array([], dtype=np.int64), ["kind"]).num_rows == 0
    assert (xmatch.nearest([10.0], [0.5], 5.0, catalog.index).row == -1).all()
    with pytest.raises(CatalogError, match="is no day"):
        catalogs.build(declare(), file, tmp_path / "stars", covered=covered, snapshot_date="20260203")


# ------------------------------------------------------------------------------------------------ classes of sources
def test_motion_and_host_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    n = 4000
    table = write_uniform(tmp_path / "plain.parquet", n)
    speed = rng.exponential(100, n)
    table = table.append_column("pmRA", pa.array(speed)).append_column("pmDE", pa.array(-speed))
    distance = np.where(rng.uniform(size=n) < 0.1, np.nan, rng.uniform(1.0, 500.0, n))
    pq.write_table(table.append_column("dist", pa.array(distance)), tmp_path / "moving.parquet")
    columns = [
        {"name": "number", "source": "No", "type": "int64"},
        {"name": "lum_dist_mpc", "source": "dist", "type": "float64"},
    ]
    declaration = declare(
        column=columns,
        motion={"pmra": "pmRA", "pmdec": "pmDE"},
        host={"distance_mpc": "lum_dist_mpc", "radius_kpc": 20},
    )
    catalog = catalogs.build(declaration, tmp_path / "moving.parquet", tmp_path / "moving")
    catalog.verify()
    order = catalog.take(np.arange(n), ["number"])["number"].to_numpy()
    pmra, pmdec = catalog.proper_motion
    np.testing.assert_array_equal(pmra, speed[order])
    np.testing.assert_array_equal(pmdec, -speed[order])
    motion, host = catalog.classes("motion"), catalog.classes("host")
    assert motion is not None
    assert host is not None
    expected = xmatch.build_motion_classes(catalog.index, speed[order], -speed[order])
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(motion.arrays()[name], array)
    # 20 kpc at the angular-diameter distance D_L / (1+z)^2 of the Planck 2018 cosmology, astropy's.
    near = distance[order[host.rows]]
    from astropy.cosmology import Planck18

    grid = np.linspace(1e-4, 0.2, 20_000)
    redshift = np.interp(near, Planck18.luminosity_distance(grid).value, grid)
    angle = np.degrees(20e-3 / (near / (1 + redshift) ** 2)) * 3600
    np.testing.assert_allclose(host.reach_arcsec, np.minimum(angle, cosmology.MAX_REACH_ARCSEC), rtol=1e-5)
    assert sorted(host.rows) == np.flatnonzero(np.isfinite(distance[order])).tolist()
    assert pickle.loads(pickle.dumps(catalog)).classes("host") is not None
    with pytest.raises(ValueError, match="is not one of"):
        catalog.classes("colour")
    # Motion and hosts decide matches, so they are in the digest: what is declared, and every value.
    faster = pq.read_table(tmp_path / "moving.parquet")
    faster = faster.set_column(faster.column_names.index("pmRA"), "pmRA", pa.array(np.append(speed[:-1], 7.0)))
    pq.write_table(faster, tmp_path / "faster.parquet")
    assert catalogs.build(declaration, tmp_path / "faster.parquet", tmp_path / "faster").digest != catalog.digest
    plain = declare(column=columns)
    digests = {catalogs.build(plain, tmp_path / "moving.parquet", tmp_path / "moving").digest, catalog.digest}
    assert len(digests) == 2
    assert catalogs.open_catalog(tmp_path / "moving").classes("host") is None
    with pytest.raises(CatalogError, match="declares no proper motion"):
        catalogs.open_catalog(tmp_path / "moving").proper_motion  # noqa: B018


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

    monkeypatch.setattr(pq, "write_metadata", full)
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
    data = (catalog.path / "index" / "dec.npy").read_bytes()
    (catalog.path / "index" / "dec.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CatalogError, match=r"index/dec\.npy differs"):
        catalogs.open_catalog(catalog.path).verify()
    (catalog.path / "index" / "dec.npy").write_bytes(data[:-8])
    with pytest.raises(CatalogError, match="bytes instead of"):
        catalogs.open_catalog(catalog.path)
    (catalog.path / "index" / "dec.npy").unlink()
    with pytest.raises(CatalogError, match="is missing"):
        catalogs.open_catalog(catalog.path)
    (catalog.path / "index" / "dec.npy").write_bytes(data)
    tile = next((catalog.path / "stars" / "dataset").rglob("Npix=*.parquet"))
    kept = tile.read_bytes()
    tile.write_bytes(kept[:-1])
    with pytest.raises(CatalogError, match=r"Npix=\d+\.parquet differs"):
        catalogs.open_catalog(catalog.path).verify()
    tile.unlink()
    with pytest.raises(CatalogError, match=r"Npix=\d+\.parquet is missing"):
        catalogs.open_catalog(catalog.path).verify()
    columns = catalog.path / "index" / "columns.arrow"
    whole = columns.read_bytes()
    columns.write_bytes(bytes(len(whole)))
    with pytest.raises(CatalogError, match=r"damaged: columns\.arrow"):
        catalogs.open_catalog(catalog.path).take(np.array([0]), ["number"])
    columns.write_bytes(whole)
    meta = catalog.path / "meta.json"
    text = meta.read_text()
    for damaged, message in [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"layout": 2}', "damaged"),
        ('{"layout": 1}', "layout 1, this version reads 2.*build it again"),
        (text.replace('"layout": 2', '"layout": 9'), "layout 9"),
        (text.replace('"index/ra.npy"', '"index/../ra.npy"'), "other files"),
        (text.replace('"stars/properties"', '"../stars/properties"'), "other files"),
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


def test_what_killed_builds_left_is_taken_away(tmp_path: Path) -> None:
    file, folder = write_parquet(tmp_path), tmp_path / "built"
    kept = catalogs.build(declare(), file, folder / "stars").digest
    left = folder / ".stars.building-killed"
    left.mkdir()
    (folder / "stars").rename(left / "replaced")  # killed between the two renames of its end
    long_ago = 1_000_000_000
    os.utime(left, (long_ago, long_ago))
    with pytest.raises(CatalogError):
        catalogs.build(declare(ra="absent"), file, folder / "stars")
    assert catalogs.open_catalog(folder / "stars").digest == kept
    assert [item.name for item in folder.iterdir()] == ["stars"]
    # That of a build that goes on, and of another catalog, stays.
    working, other = folder / ".stars.building-working", folder / ".starsign.building-x"
    for place in (working, other):
        place.mkdir()
        os.utime(place, (long_ago, long_ago))
    with building._locked(working) as is_mine:
        assert is_mine
        catalogs.build(declare(), file, folder / "stars")
    assert sorted(item.name for item in folder.iterdir()) == [working.name, other.name, "stars"]


def test_a_catalog_replaced_while_in_use_is_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    used, late = (catalogs.build(declare(), write_parquet(tmp_path), tmp_path / "stars") for _ in range(2))
    used = catalogs.open_catalog(tmp_path / "stars")
    before = used.index.ra.tolist()
    moved = STARS.set_column(1, "RA", pa.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    pq.write_table(moved, tmp_path / "moved.parquet")
    catalogs.build(declare(), tmp_path / "moved.parquet", tmp_path / "stars")
    assert used.index.ra.tolist() == before  # what is mapped stays
    for read in (lambda: late.index, lambda: used.take(np.arange(1), ["mag"])):
        with pytest.raises(CatalogError, match="was replaced while it was in use"):
            read()
