"""Host galaxies: story 1's numbers, brute force over all galaxies, nulls, ties, partitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.cosmology import Planck18
from galaxies import COLUMNS, Galaxies, alerts_at, brute_force, declare

from pipeline import catalogs, healpix
from pipeline.stages import host
from pipeline.stages.groups import apply

DEG_PER_ARCSEC = 1 / 3600


@pytest.fixture(scope="module")
def mangrove(shared_data: Path) -> Galaxies:
    table = pq.read_table(shared_data / "catalogs" / "mangrove.parquet").combine_chunks()
    renamed = table.rename_columns(
        {"HyperLEDA_name": "name", "2MASS_name": "alias", "lum_dist": "lum_dist_mpc", "ang_dist": "ang_dist_mpc"}
    )
    given = ["name", "alias", "lum_dist_mpc", "ang_dist_mpc"]
    numbers = {name: renamed[name].cast(pa.float64()) for name in ("ra", "dec", "lum_dist_mpc", "ang_dist_mpc")}
    texts = {name: renamed[name] for name in ("name", "alias")}
    return Galaxies(declare("mangrove", given=given), pa.table(numbers | texts))


def random_galaxies(name: str, rng: np.random.Generator, n: int = 400, **given: np.ndarray) -> Galaxies:
    """Galaxies all around one place, near ones that reach degrees among them, some without a distance."""
    ra, dec = rng.normal(150.0, 2.0, n), np.clip(rng.normal(20.0, 2.0, n), -90, 90)
    distance = np.where(rng.random(n) < 0.02, 10.0 ** rng.uniform(-2, 0.5, n), 10.0 ** rng.uniform(0.7, 2.5, n))
    distance[rng.random(n) < 0.1] = np.nan
    columns = {
        **{"ra": ra, "dec": dec, "lum_dist_mpc": distance, "lum_dist_err_mpc": np.full(n, np.nan)},
        **{"ang_dist_mpc": np.full(n, np.nan), "z": np.where(rng.random(n) < 0.3, rng.uniform(0, 0.1, n), np.nan)},
        **{"stellar_mass_msun": 10.0 ** rng.uniform(8, 11, n)},
    } | given
    texts = {"name": [f"{name}{i}" for i in range(n)], "alias": [None] * n}
    return Galaxies(declare(name), pa.table(columns | texts))


def check(alerts: pa.Table, catalogs: list[Galaxies]) -> pa.Table:
    """Compare the stage with brute force; return what it gives."""
    out = host.match(alerts, catalogs)
    assert out.schema.equals(pa.schema(host.produces()), check_metadata=True)
    by_name = {item.name: item for item in catalogs}
    for row, expected in zip(out.to_pylist(), brute_force(alerts, catalogs), strict=True):
        if expected is None:
            assert row["host_n_candidates"] == 0
            assert {value for name, value in row.items() if name != "host_n_candidates"} == {None}
            continue
        name, place, kpc, count = expected
        galaxy = by_name[name]
        assert (row["host_catalog"], row["host_n_candidates"]) == (name, count)
        assert row["host_separation_kpc"] == pytest.approx(kpc, rel=1e-8, abs=1e-9)
        assert (row["host_ra"], row["host_dec"]) == (galaxy.index.ra[place], galaxy.index.dec[place])
        assert row["host_name"] == galaxy.payload["name"][place].as_py()
        assert row["host_distance_mpc"] == galaxy.distances.luminosity_mpc[place]
    return out


def test_the_kilonova_of_story_1(mangrove: Galaxies) -> None:
    """NGC3052, 57.25 Mpc (error unknown), 3.43 kpc away."""
    row = host.match(alerts_at(np.array([148.6188113]), np.array([-18.6363575])), [mangrove]).to_pylist()[0]
    assert (row["host_name"], row["host_alias"], row["host_catalog"]) == ("NGC3052", "09542791-1838202", "mangrove")
    assert row["host_distance_mpc"] == pytest.approx(57.2517, abs=5e-5)
    assert row["host_distance_err_mpc"] is None
    assert row["host_redshift"] is None and row["host_stellar_mass_msun"] is None
    assert row["host_separation_arcsec"] == pytest.approx(12.579, abs=5e-4)
    assert row["host_separation_kpc"] == pytest.approx(3.432, abs=5e-4)
    assert row["host_n_candidates"] >= 1


def test_real_galaxies_equal_brute_force(mangrove: Galaxies) -> None:
    """Around real galaxies, the ten with the largest reach first, and anywhere."""
    rng = np.random.default_rng(5)
    reach = np.nan_to_num(mangrove.reach)
    near = np.concatenate([np.argsort(-reach)[:10], rng.integers(0, mangrove.payload.num_rows, 50)])
    away = rng.uniform(0, 1.1, 60) * reach[near] * DEG_PER_ARCSEC
    angle = rng.uniform(0, 2 * np.pi, 60)
    dec = np.clip(mangrove.index.dec[near] + away * np.sin(angle), -90, 90)
    ra = mangrove.index.ra[near] + away * np.cos(angle) / np.cos(np.radians(dec))
    out = check(alerts_at(ra % 360, dec), [mangrove])
    assert 5 <= out["host_n_candidates"].to_pylist().count(0) < 40
    assert max(out["host_separation_arcsec"].drop_null().to_pylist()) > 600


@pytest.mark.parametrize("seed", range(3))
def test_random_galaxies_of_two_catalogs_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogs = [random_galaxies(name, rng) for name in ("zeta", "alpha")]
    alerts = alerts_at(rng.normal(150.0, 2.5, 150), np.clip(rng.normal(20.0, 2.5, 150), -90, 90))
    out = check(alerts, catalogs)
    assert set(out["host_catalog"].to_pylist()) >= {"zeta", "alpha"}
    assert max(out["host_n_candidates"].to_pylist()) > 3


def one_galaxy(name: str, distance: float, **columns: object) -> Galaxies:
    row = {"ra": [10.0], "dec": [0.0], "name": [name], "alias": [None], "lum_dist_mpc": [distance]}
    row |= {"lum_dist_err_mpc": [None], "ang_dist_mpc": [None], "z": [None], "stellar_mass_msun": [None]}
    row |= {key: [value] for key, value in columns.items()}
    types = {**dict.fromkeys(("ra", "dec"), pa.float64())}
    schema = pa.schema(
        [(key, types.get(key, pa.string() if COLUMNS.get(key) == "string" else pa.float64())) for key in row]
    )
    return Galaxies(declare(name), pa.table(row, schema=schema))


def test_a_near_galaxy_reaches_five_degrees_and_no_farther() -> None:
    tiny = one_galaxy("dwarf", 0.05)  # 30 kpc would be 34 degrees
    out = host.match(alerts_at(np.array([14.999, 15.001]), np.zeros(2)), [tiny])
    assert out["host_n_candidates"].to_pylist() == [1, 0]


def test_the_nearest_in_kpc_wins_over_the_nearest_in_arcsec() -> None:
    near, far = one_galaxy("near", 5.0, ra=10.02), one_galaxy("far", 100.0, ra=10.01)
    row = host.match(alerts_at(np.array([10.0]), np.zeros(1)), [near, far]).to_pylist()[0]
    assert (row["host_name"], row["host_n_candidates"]) == ("near", 2)
    assert row["host_separation_arcsec"] == pytest.approx(72.0)


def test_ties_go_by_the_name_of_the_catalog() -> None:
    twins = [one_galaxy("b", 50.0), one_galaxy("a", 50.0)]
    for asked in (twins, twins[::-1]):
        assert host.match(alerts_at(np.array([10.001]), np.zeros(1)), asked)["host_name"].to_pylist() == ["a"]


def test_a_galaxy_of_a_redshift_alone() -> None:
    galaxy = one_galaxy("g", np.nan, z=0.05, stellar_mass_msun=3e10)
    row = host.match(alerts_at(np.array([10.001]), np.zeros(1)), [galaxy]).to_pylist()[0]
    expected = Planck18.luminosity_distance(0.05).value
    moved = Planck18.luminosity_distance(1.05 * (1 + 300 / 299792.458) - 1).value
    assert row["host_distance_mpc"] == pytest.approx(expected, rel=1e-6)
    assert row["host_distance_err_mpc"] == pytest.approx(moved - expected, rel=0.01)
    assert row["host_separation_kpc"] == pytest.approx(3.6 * Planck18.kpc_proper_per_arcmin(0.05).value / 60, rel=1e-6)
    assert (row["host_redshift"], row["host_stellar_mass_msun"]) == (0.05, 3e10)


def test_solar_system_objects_and_what_no_catalog_covers_are_null() -> None:
    galaxy = one_galaxy("g", 50.0)
    galaxy.covered = healpix.ranges_of(6, healpix.ang2pix(6, [10.0], [0.0]))
    alerts = alerts_at(
        np.array([10.001, 10.001, 200.0, np.nan]), np.array([0.0, 0.0, 0.0, 0.0]), np.array([False, True, False, False])
    )
    out = host.match(alerts, [galaxy])
    assert out["host_name"].to_pylist() == ["g", None, None, None]
    assert out["host_n_candidates"].to_pylist() == [1, None, None, None]  # not consulted is not "none there"
    wide = one_galaxy("wide", 0.5)  # it reaches 3.4 degrees, but was not built there
    wide.covered = galaxy.covered
    assert host.match(alerts_at(np.array([12.0]), np.zeros(1)), [wide])["host_name"].to_pylist() == [None]
    assert (
        host.match(alerts_at(np.array([12.0]), np.zeros(1)), [one_galaxy("wide", 0.5)])["host_name"]
        .is_valid()[0]
        .as_py()
    )
    both = host.match(alerts, [galaxy, one_galaxy("all", 50.0, dec=-80.0)])
    assert both["host_n_candidates"].to_pylist() == [1, None, 0, None]
    assert host.match(alerts, [])["host_n_candidates"].null_count == 4


def test_partitions_permutations_slices_and_no_rows() -> None:
    rng = np.random.default_rng(8)
    catalogs = [random_galaxies(name, rng) for name in ("a", "b")]
    alerts = alerts_at(rng.normal(150, 2, 200), rng.normal(20, 2, 200), rng.random(200) < 0.1)
    whole = host.match(alerts, catalogs)
    parts = [host.match(alerts.slice(start, 60), catalogs) for start in range(0, 200, 60)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    chunked = pa.concat_tables([alerts.slice(0, 7), alerts.slice(7)])
    assert host.match(chunked, catalogs).combine_chunks().equals(whole.combine_chunks())
    turned = rng.permutation(200)
    assert host.match(alerts.take(turned), catalogs).equals(whole.take(turned).combine_chunks())
    assert host.match(alerts, catalogs[::-1]).equals(whole)
    assert host.match(alerts.slice(0, 0), catalogs).schema.equals(whole.schema)
    assert 10 < whole["host_name"].null_count < 180


def test_the_group_runs_as_enrichment_runs_it() -> None:
    galaxy = one_galaxy("g", 50.0)
    plain = Galaxies(declare("h"), galaxy.payload)
    plain.declaration = declare("h")
    bound = host.group([galaxy, plain])
    assert (bound.name, set(bound.digests)) == ("host", {"g", "h"})
    table = apply(bound, alerts_at(np.array([10.001]), np.zeros(1)))
    assert table["host_catalog"].to_pylist() == ["g"]
    other = host.group([galaxy])
    assert other.definition != bound.definition


def test_a_catalog_that_was_built_gives_the_same(tmp_path: Path) -> None:
    """Reach, distances and payload as they come out of the files of a built catalog."""
    rng = np.random.default_rng(11)
    here = random_galaxies("galaxies", rng)
    pq.write_table(here.payload, tmp_path / "galaxies.parquet")
    built = catalogs.build(here.declaration, tmp_path / "galaxies.parquet", tmp_path / "galaxies")
    alerts = alerts_at(rng.normal(150, 2, 300), rng.normal(20, 2, 300))
    assert host.match(alerts, [built]).equals(host.match(alerts, [here]))
    assert host.group([built]).digests == {"galaxies": built.digest}
