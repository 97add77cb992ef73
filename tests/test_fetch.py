"""Catalogs fetched from a service: what is asked, kept and built, against brute force on the sky that is served."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from services.server import CatalogServer
from services.sky import make_alerts, make_sky, separation_arcsec

from pipeline import healpix
from pipeline.catalogs import get_declaration, load_declarations, open_catalog
from pipeline.catalogs.fetch import Politeness, check_service, fetch
from pipeline.catalogs.fetch import service as services
from pipeline.catalogs.fetch.cells import Discs, cell_radius_arcsec, discs_of, smaller_discs, wanted_cells
from pipeline.catalogs.fetch.requests import adql
from pipeline.catalogs.fetch.snapshot import snapshot_of
from pipeline.errors import CatalogError, InputError, ServiceError
from pipeline.stages import xmatch as stage
from pipeline.xmatch import CatalogColumn, CatalogDeclaration, HostColumns, Motion, parse_declaration

TODAY = datetime.date(2026, 11, 22)
KINDS = ["xmatch", "tap", "vizier", "simbad", "gaia"]
TABLES = {"xmatch": "vizier:I/355/gaiadr3", "vizier": "I/355/gaiadr3", "tap": "stars.main"}
SKY = make_sky()
ALERTS = make_alerts()


def declare(kind: str, **given: Any) -> CatalogDeclaration:
    """A catalog of the sky served, small requests, no pause."""
    service = {"kind": kind, "chunk": 20, "pause_sec": 0.0, "order": 11, "url": "http://127.0.0.1:9/"}
    service |= {"table": TABLES[kind]} if kind in TABLES else {}
    return CatalogDeclaration(
        name="stars",
        doc="stars",
        source="a service",
        licence="none",
        ra="ra",
        dec="dec",
        radius_arcsec=2.0,
        id="name",
        columns=(
            CatalogColumn("name", "string", "main_id"),
            CatalogColumn("id_of_source", "int64", "source_id"),
            CatalogColumn("otype", "string", "otype"),
            CatalogColumn("g_mag", "float32", "mag", unit="mag"),
        ),
        service={**service, **given.pop("service", {})},
        **given,
    )


def hasty(**given: Any) -> Politeness:
    """Waits are noted, not waited."""
    waits: list[float] = []
    polite = Politeness(**{"pause_sec": 0.0, "sleep": waits.append, "clock": lambda: 0.0, **given})
    polite.waits = waits  # type: ignore[attr-defined]
    return polite


def run(
    server: CatalogServer, kind: str, folder: Path, declaration: CatalogDeclaration | None = None, **given: Any
) -> Any:
    declaration = declaration or declare(kind)
    given = {"today": TODAY, "timeout_sec": 20.0, "politeness": hasty(), "healpix_29": ALERTS[2], **given}
    return fetch(declaration, given.pop("healpix_29"), folder, url=server.url(kind), **given)


def assert_matches_are_those_of_brute_force(path: str, declaration: CatalogDeclaration) -> None:
    catalog = open_catalog(path)
    catalog.verify()
    table = pa.table({"ra": ALERTS[0], "dec": ALERTS[1], "healpix_29": ALERTS[2]})
    matched = stage.match(table, catalog, declaration).to_pylist()
    names = SKY.columns["main_id"]
    found = 0
    for row, ra, dec in zip(matched, ALERTS[0], ALERTS[1], strict=True):
        distance = separation_arcsec(ra, dec, SKY.ra, SKY.dec)
        near = np.flatnonzero(distance <= declaration.radius_arcsec)
        assert row["is_stars_covered"] is True
        assert row["xm_stars_n_neighbours"] == len(near)
        if not len(near):
            assert row["xm_stars_id"] is None and row["xm_stars_separation_arcsec"] is None
            continue
        found += 1
        best = near[np.argmin(distance[near])]
        assert row["xm_stars_id"] == names[best]
        assert row["xm_stars_id_of_source"] == SKY.columns["source_id"][best]
        assert row["xm_stars_otype"] == (SKY.columns["otype"][best] or None)
        magnitude = SKY.columns["mag"][best]
        assert row["xm_stars_g_mag"] == (None if np.isnan(magnitude) else pytest.approx(magnitude, rel=1e-6))
    assert found > 20


# ------------------------------------------------------------------------------------------------- cells and discs
def test_the_radius_of_a_cell_is_that_of_healpy() -> None:
    healpy = pytest.importorskip("healpy")
    for order in range(20):
        assert cell_radius_arcsec(order) == pytest.approx(healpy.max_pixrad(1 << order, degrees=True) * 3600, rel=1e-6)


@pytest.mark.parametrize("order", [6, 9, 11, 13])
def test_every_place_within_the_margin_of_a_cell_lies_in_its_disc(order: int) -> None:
    rng = np.random.default_rng(order)
    ra, dec = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    ra, dec = np.concatenate([ra, ALERTS[0]]), np.concatenate([dec, ALERTS[1]])
    cells = healpix.ang2pix(order, ra, dec)
    discs = discs_of(order, cells, 7.0)
    for row in range(len(ra)):
        distance = separation_arcsec(ra[row], dec[row], discs.ra[row : row + 1], discs.dec[row : row + 1])[0]
        assert distance + 7.0 <= discs.radius_arcsec


def test_cells_are_asked_for_once_and_alerts_without_position_not_at_all() -> None:
    cells = wanted_cells(11, np.concatenate([ALERTS[2], ALERTS[2][::-1], [-1]]))
    assert cells.tolist() == sorted({int(cell) >> 36 for cell in ALERTS[2]})


@pytest.mark.parametrize("radius", [120.0, 3600.0])
@pytest.mark.parametrize("place", [(10.0, 0.0), (0.0, 41.81), (359.99999, -89.99), (45.0, 90.0)])
def test_smaller_discs_cover_a_disc(place: tuple[float, float], radius: float) -> None:
    disc = Discs(np.array([place[0]]), np.array([place[1]]), radius)
    rng = np.random.default_rng(3)
    while (smaller := smaller_discs(disc)) is not None:
        assert smaller.radius_arcsec < 0.6 * disc.radius_arcsec
        angle, reach = (
            rng.uniform(0, 2 * np.pi, 2000),
            disc.radius_arcsec * np.radians(np.sqrt(rng.uniform(0, 1, 2000)) / 3600),
        )
        one, two = np.radians(disc.ra[0]), np.radians(disc.dec[0])
        centre = np.array([np.cos(two) * np.cos(one), np.cos(two) * np.sin(one), np.sin(two)])
        east = np.array([-np.sin(one), np.cos(one), 0.0])
        around = np.outer(np.cos(angle), east) + np.outer(np.sin(angle), np.cross(centre, east))
        points = centre * np.cos(reach)[:, None] + around * np.sin(reach)[:, None]
        ra = np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360
        dec = np.degrees(np.arcsin(np.clip(points[:, 2], -1, 1)))
        assert np.isfinite(smaller.distance_arcsec(ra, dec, 0.0)).all()
        disc = Discs(smaller.ra[:1], smaller.dec[:1], smaller.radius_arcsec)
    assert disc.radius_arcsec < 3.0


# ------------------------------------------------------------------------------------------------- whole fetches
@pytest.mark.parametrize("kind", KINDS)
def test_a_fetched_catalog_gives_the_matches_of_the_whole_one(kind: str, tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        done = run(server, kind, tmp_path)
        assert done.is_complete and done.retries == 0
        assert done.cells_asked == done.cells_wanted == len(wanted_cells(11, ALERTS[2]))
        assert done.requests == len(server.requests) == -(-done.cells_wanted // 20)
        assert all("alertmill/" in request.headers["user-agent"] for request in server.requests)
    assert_matches_are_those_of_brute_force(done.path, declare(kind))
    catalog = open_catalog(done.path)
    assert catalog.snapshot_date == done.snapshot_date == "2026-11-22"
    expected = healpix.ranges_of(11, wanted_cells(11, ALERTS[2]))
    assert np.array_equal(catalog.covered, expected)


def test_discs_may_stand_in_the_query_itself(tmp_path: Path) -> None:
    declaration = declare("tap", service={"discs": "query", "where": "mag < 30"})
    with CatalogServer(SKY) as server:
        done = run(server, "tap", tmp_path, declaration)
        assert not server.requests[0].files and "AND (mag < 30)" in server.requests[0].fields["QUERY"]
    assert_matches_are_those_of_brute_force(done.path, declaration)


def test_outside_the_cells_is_not_covered_and_inside_without_source_is_no_match(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        done = run(server, "tap", tmp_path)
    catalog = open_catalog(done.path)
    centre_ra, centre_dec = healpix.pix2ang(11, wanted_cells(11, ALERTS[2]))
    far = np.concatenate([centre_ra, [10.0, 200.0]]), np.concatenate([centre_dec, [-30.0, 5.0]])
    table = pa.table({"ra": far[0], "dec": far[1], "healpix_29": healpix.ang2pix(29, *far)})
    rows = stage.match(table, catalog, declare("tap")).to_pylist()
    assert all(row["is_stars_covered"] and row["xm_stars_n_neighbours"] is not None for row in rows[:-2])
    assert sum(row["xm_stars_n_neighbours"] == 0 for row in rows[:-2]) > 20
    assert all(not row["is_stars_covered"] and row["xm_stars_n_neighbours"] is None for row in rows[-2:])


def test_cells_without_any_source_make_an_empty_catalog_that_covers_them(tmp_path: Path) -> None:
    cells = healpix.ang2pix(29, [45.0, 45.1], [-20.0, -20.0])
    with CatalogServer(SKY) as server:
        for kind in KINDS:
            done = run(server, kind, tmp_path / kind, healpix_29=cells)
            assert done.rows == 0 and done.covered_deg2 > 0
            table = pa.table({"ra": [45.0], "dec": [-20.0], "healpix_29": cells[:1]})
            (row,) = stage.match(table, open_catalog(done.path), declare(kind)).to_pylist()
            assert row["is_stars_covered"] and row["xm_stars_n_neighbours"] == 0 and row["xm_stars_id"] is None


@pytest.mark.parametrize("kind", ["xmatch", "vizier", "simbad"])
def test_the_catalog_does_not_depend_on_chunks_or_their_order(kind: str, tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        digests = {run(server, kind, tmp_path / str(size), chunk=size).digest for size in (11, 1000)}
        first, second = ALERTS[2][:30], ALERTS[2][30:]
        run(server, kind, tmp_path / "parts", healpix_29=second)
        digests.add(run(server, kind, tmp_path / "parts", healpix_29=first).digest)
    assert len(digests) == 1


def test_truncated_answers_are_asked_for_in_smaller_pieces(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        whole = run(server, "tap", tmp_path / "whole")
    for kind, behaviour in [*zip(KINDS, ["well"] * 5, strict=True), ("tap", "silent cap"), ("vizier", "silent cap")]:
        with CatalogServer(SKY, (behaviour,), cap=50) as server:
            cut = run(server, kind, tmp_path / kind / behaviour)
            assert cut.requests > whole.requests
        assert cut.digest == whole.digest, (kind, behaviour)


def test_a_single_crowded_cell_is_asked_for_in_smaller_discs(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    crowd = make_sky(per_centre=1)
    n = 290
    columns = {name: np.resize(values, n) for name, values in crowd.columns.items()}
    columns["ra"] = 150.1 + rng.normal(0, 70 / 3600, n)
    columns["dec"] = 2.2 + rng.normal(0, 70 / 3600, n)
    columns["main_id"] = np.array([f"OBJ {number}" for number in range(n)])
    crowd = replace(crowd, columns=columns)
    cell = healpix.ang2pix(29, [150.1], [2.2])
    with CatalogServer(crowd) as server:
        whole = run(server, "tap", tmp_path / "whole", healpix_29=cell)
    assert whole.requests == 1 and 150 < whole.rows < n - 50
    for kind in ("xmatch", "vizier"):
        with CatalogServer(crowd, cap=100) as server:
            cut = run(server, kind, tmp_path / kind, healpix_29=cell)
        assert cut.requests > 5 and cut.digest == whole.digest


def test_a_service_that_always_truncates_is_told_and_not_asked_for_ever(tmp_path: Path) -> None:
    with CatalogServer(SKY, ("always cut",)) as server, pytest.raises(ServiceError, match="truncated"):
        run(server, "tap", tmp_path)
    assert len(server.requests) < 60
    assert not (tmp_path / "stars").exists()


# ------------------------------------------------------------------------------------------------- resuming, dates
def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("done_before", [1, 2])
def test_a_fetch_that_died_goes_on_and_ends_in_the_same_bytes(done_before: int, tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        run(server, "simbad", tmp_path / "whole")
        requests = len(server.requests)
    with CatalogServer(SKY, ("well",) * done_before + ("dead",)) as server:
        with pytest.raises(ServiceError, match=r"5 times.*run the same command again"):
            run(server, "simbad", tmp_path / "parts")
        assert not (tmp_path / "parts" / "stars").exists()
        assert not list((tmp_path / "parts").rglob("snapshot.json"))
        server.script, before = ["well"], len(server.requests)
        done = run(server, "simbad", tmp_path / "parts")
        assert len(server.requests) - before == requests - done_before
        assert done.cells_known == 20 * done_before
    address = {"service": 0}
    ours, theirs = tree(tmp_path / "parts"), tree(tmp_path / "whole")
    assert set(ours) == set(theirs)
    for name, data in ours.items():
        if name.endswith(".json") and "_fetch" in name:  # the port of the server differs, nothing else
            assert json.loads(data) | address == json.loads(theirs[name]) | address, name
        else:
            assert data == theirs[name], name


def test_nothing_is_asked_twice_and_further_nights_add_their_cells(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        first = run(server, "gaia", tmp_path, healpix_29=ALERTS[2][:20])
        again = run(server, "gaia", tmp_path, healpix_29=ALERTS[2][:20], today=TODAY + datetime.timedelta(9))
        assert again.requests == 0 and again.digest == first.digest and again.snapshot_date == "2026-11-22"
        more = run(server, "gaia", tmp_path)
        assert more.cells_known == first.cells_asked and more.cells_asked == more.cells_wanted - more.cells_known
        assert server.asked_discs() == more.cells_wanted
    assert_matches_are_those_of_brute_force(more.path, declare("gaia"))


def test_a_partial_catalog_covers_only_what_was_answered(tmp_path: Path) -> None:
    with CatalogServer(SKY, ("well", "500")) as server:
        done = run(server, "xmatch", tmp_path, is_partial_allowed=True)
    assert not done.is_complete and "HTTP 500" in done.problem and done.cells_asked == 20
    catalog = open_catalog(done.path)
    covered = healpix.in_ranges(catalog.covered, ALERTS[2])
    assert 0 < covered.sum() < len(covered)
    told = json.loads(next(tmp_path.rglob("snapshot.json")).read_text())
    assert told["is_complete"] is False and np.array_equal(told["covered"], catalog.covered)
    with CatalogServer(SKY) as server:
        assert run(server, "xmatch", tmp_path).is_complete


def test_snapshots_of_different_days_are_kept_apart(tmp_path: Path) -> None:
    declaration = replace(declare("simbad"), snapshot=True)
    later = make_sky()
    later.columns["otype"][:] = "SN*"
    with CatalogServer(SKY) as server:
        first = run(server, "simbad", tmp_path, declaration, healpix_29=ALERTS[2][:30])
    tomorrow = TODAY + datetime.timedelta(1)
    with CatalogServer(later) as server:
        second = run(server, "simbad", tmp_path, declaration, today=tomorrow)
        assert second.cells_known == 0 and second.snapshot_date == "2026-11-23"
        with pytest.raises(InputError, match="cannot be dated back"):
            run(server, "simbad", tmp_path, declaration, today=tomorrow, as_of=TODAY)
        with pytest.raises(InputError, match="not come yet"):
            run(server, "simbad", tmp_path, declaration, as_of=tomorrow)
        before = len(server.requests)
        back = run(server, "simbad", tmp_path, declaration, today=tomorrow, as_of=TODAY, healpix_29=ALERTS[2][:30])
        assert len(server.requests) == before and back.digest == first.digest and back.snapshot_date == "2026-11-22"
    dated = sorted((tmp_path / "_fetch" / "stars").glob("*/catalog"))
    assert [open_catalog(path).snapshot_date for path in dated] == ["2026-11-22", "2026-11-23"]
    assert open_catalog(tmp_path / "stars").snapshot_date == "2026-11-23"
    assert open_catalog(dated[0]).digest == first.digest != second.digest


def test_another_question_is_another_snapshot(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        first = run(server, "tap", tmp_path)
        changed = replace(declare("tap"), margin_arcsec=30.0)
        second = run(server, "tap", tmp_path, changed)
    assert second.cells_known == 0 and first.cells_asked == second.cells_asked
    assert len(list((tmp_path / "_fetch" / "stars").iterdir())) == 2


def test_a_damaged_chunk_is_told_and_not_built_from(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        run(server, "tap", tmp_path)
        chunk = sorted(tmp_path.rglob("chunk-*.parquet"))[0]
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
        with pytest.raises(CatalogError, match=r"chunk is damaged.*delete both"):
            run(server, "tap", tmp_path)


def test_what_is_kept_of_a_chunk(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        run(server, "tap", tmp_path)
        (snapshot,) = {file.parent for file in tmp_path.rglob("chunk-*.json")}
        told = json.loads(sorted(snapshot.glob("chunk-*.json"))[0].read_text())
        assert told["service"] == server.url("tap") and told["date"] == 20261122 and told["cells"] == 20
    assert told["query"].startswith(
        "SELECT TOP 20000 u.ask_id, c.ra, c.dec, c.main_id, c.source_id, c.otype, c.mag FROM"
    )
    assert len(told["sha256"]) == 64
    service = check_service(declare("tap"))
    assert snapshot_of(tmp_path, declare("tap"), service, 20261122).folder == snapshot


def test_proper_motion_is_fetched_and_fast_sources_are_no_lie(tmp_path: Path) -> None:
    moving = make_sky()
    n = len(moving.ra)
    moving.columns["pmra"], moving.columns["pmdec"] = np.full(n, 3000.0), np.full(n, -1000.0)
    moving.units.update(pmra="mas / yr", pmdec="mas / yr")
    declaration = replace(declare("gaia"), motion=Motion("pmra", "pmdec"), epoch=2016.0)
    with CatalogServer(moving) as server:
        done = run(server, "gaia", tmp_path, declaration)
    catalog = open_catalog(done.path)
    assert catalog.classes("motion") is not None and done.rows > 50
    far = replace(moving, columns={**moving.columns, "pmra": np.zeros(n), "pmdec": np.zeros(n)})
    with CatalogServer(far, ("outside",)) as server, pytest.raises(ServiceError, match="outside the sky"):
        run(server, "gaia", tmp_path / "far", declaration)


def test_positions_in_other_forms_and_columns_of_other_names(tmp_path: Path) -> None:
    declaration = replace(
        declare("vizier", service={"ra": "ra", "dec": "dec", "columns": ["name=main_id", "g_mag=mag"]}),
        ra="RA_microdeg",
        dec="DE_microdeg",
        position_format="microdeg",
        columns=(CatalogColumn("name", "string", "Name"), CatalogColumn("g_mag", "float64", "Gmag", unit="mag")),
    )
    with CatalogServer(SKY) as server:
        done = run(server, "vizier", tmp_path, declaration)
    catalog = open_catalog(done.path)
    rows = catalog.take(np.arange(catalog.rows), ["name"])["name"].to_pylist()
    number = [int(name.split()[1]) for name in rows]
    assert np.allclose(catalog.index.ra, SKY.ra[number], atol=1e-9) and np.allclose(catalog.index.dec, SKY.dec[number])


def test_moving_sources_and_hosts_have_a_wider_margin() -> None:
    plain = check_service(declare("gaia"))
    moving = check_service(replace(declare("gaia"), motion=Motion("pmra", "pmdec")))
    galaxies = declare("gaia", service={"order": 9})
    galaxies = replace(galaxies, host=HostColumns(redshift="g_mag"))
    assert (plain.margin_arcsec, moving.margin_arcsec, check_service(galaxies).margin_arcsec) == (10.0, 22.0, 600.0)


def test_names_that_adql_would_misread_are_quoted() -> None:
    service = replace(
        check_service(declare("tap")), columns=(("M*", "M*"), ("2MASS", "a"), ("size", "b"), ("Name", "c"))
    )
    query = adql(service, discs_of(11, np.array([5]), 1.0))
    assert (
        'c.ra, c.dec, c."M*", c."2MASS", c."size", c.Name FROM stars.main AS c JOIN TAP_UPLOAD.asked AS u ON' in query
    )


# ------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"kind": "ftp"}, "is not one of xmatch"),
        ({"kind": "tap", "table": "t"}, "needs url"),
        ({"kind": "vizier"}, "needs table"),
        ({"kind": "simbad", "tabel": "basic"}, r"unknown key tabel .*known are kind"),
        ({"kind": "simbad", "chunk": 0}, "chunk 0 is not between 1"),
        ({"kind": "simbad", "chunk": "many"}, "chunk is not a whole number"),
        ({"kind": "simbad", "chunk": 10**6}, "chunk 1000000 is not between"),
        ({"kind": "simbad", "url": "simbad.cds.unistra.fr"}, "is not an http"),
        ({"kind": "simbad", "url": "https://me:secret@host/tap"}, "holds a user"),
        ({"kind": "simbad", "url": "https://host/tap?token=secret"}, "holds a user, a query"),
        ({"kind": "simbad", "where": "a = 'b"}, "where is not one ADQL condition"),
        ({"kind": "simbad", "where": "1=1; DROP TABLE x"}, "where is not one ADQL condition"),
        ({"kind": "vizier", "table": "I/355", "where": "x > 1"}, "where does not go with kind vizier"),
        ({"kind": "xmatch", "table": "I/355/gaiadr3"}, "neither simbad nor vizier:"),
        ({"kind": "simbad", "table": "a b; c"}, "cannot be the name of one"),
        ({"kind": "simbad", "columns": ["otype"]}, "not our_name=name"),
        ({"kind": "simbad", "columns": ["colour=otype"]}, "does not declare"),
        ({"kind": "simbad", "ra": 'r"a'}, "cannot be the name of a column"),
        ({"kind": "simbad", "duplicates": "keep"}, "neither refuse nor merge"),
        ({"kind": "simbad", "order": 30}, "order 30 is not between"),
        ({"kind": "xmatch", "table": "simbad", "order": 9}, "reaches beyond 180 arcsec"),
        ({"kind": "tns", "url": "http://www.wis-tns.org/x.zip"}, "in the clear"),
        ({"kind": "tns", "key_variable": "my key"}, "not the name of an environment variable"),
    ],
)
def test_a_wrong_service_table_is_told(service: dict[str, Any], said: str) -> None:
    with pytest.raises(CatalogError, match=said) as caught:
        check_service(replace(declare("simbad"), service=service))
    assert "secret" not in str(caught.value)


def test_a_margin_that_a_service_does_not_take_is_told_and_a_large_one_takes_smaller_cells() -> None:
    service = {"kind": "xmatch", "table": "simbad"}
    assert check_service(replace(declare("simbad"), service={"kind": "gaia"})).order == 13
    assert check_service(replace(declare("simbad"), service=service)).order == 11
    assert check_service(replace(declare("simbad"), service=service, margin_arcsec=100.0)).order == 12
    with pytest.raises(CatalogError, match="200 arcsec is more than xmatch takes"):
        check_service(replace(declare("simbad"), service=service, margin_arcsec=200.0))
    with pytest.raises(CatalogError, match="declares no service"):
        check_service(replace(declare("simbad"), service=None))


@pytest.mark.parametrize("name", sorted(name for name, item in load_declarations().items() if item.service))
def test_the_service_of_every_shipped_catalog_is_right(name: str) -> None:
    service = check_service(get_declaration(name))
    assert service.reach_arcsec <= (180.0 if service.kind == "xmatch" else 3600.0)
    assert service.url.startswith("http")


def examples() -> list[str]:
    """The declarations that the documentation shows, one a kind."""
    text = (Path(__file__).parents[1] / "docs" / "catalog_services.md").read_text()
    return re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize("text", examples(), ids=lambda text: tomllib.loads(text)["service"]["kind"])
def test_the_examples_of_the_documentation_ask_their_service(text: str, tmp_path: Path) -> None:
    declaration = parse_declaration(tomllib.loads(text), "docs")
    service = check_service(declaration)
    if service.kind == "tns":
        return
    served = make_sky()
    rename = {name: name for name in ("otype", "mag")} | {service.ra: "ra", service.dec: "dec"}
    rename |= {theirs: "otype" for theirs, _ in service.columns if theirs not in rename}
    columns = {name: served.columns[source] for name, source in {**rename, "ra": "ra", "dec": "dec"}.items()}
    numbers = [item.source for item in declaration.columns if item.type != "string"] + ["pmra", "pmdec"]
    columns |= dict.fromkeys(numbers, served.columns["mag"])
    served = replace(served, columns=columns, units={})
    with CatalogServer(served) as server:
        done = run(server, service.kind, tmp_path, declaration, healpix_29=ALERTS[2][:5])
    assert done.is_complete and done.rows > 5


def test_there_is_an_example_of_every_kind() -> None:
    assert sorted(tomllib.loads(text)["service"]["kind"] for text in examples()) == sorted(services.KINDS)
