"""Many sky maps against many positions, one core, in CPU time: ours beside ligo.skymap.

ligo.skymap is measured on a few of the maps, one after another, and scaled linearly to all of them. Both sides answer
for the same positions; before anything is timed the answers are compared. Maps are real ones and their exact turns by
quarters about the poles, written out as files of their own.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from measuring import ALERTS, Board, interleaved, median, median_ratio, pinned, steady_cpu_seconds

from pipeline import healpix, skymap
from pipeline.skymap import SkyMap, sweep
from pipeline.warm import ask_skymaps

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

MAPS = 200
POSITIONS = 50 * ALERTS
THEIRS = 3
"""How many maps ligo.skymap is given in a round."""
LEVEL = 0.9
PREPARED, WITH_LOADING = 200.0, 20.0
"""Bars: how many times faster with maps loaded and positions prepared, and with that counted."""
HOSTS = 1000


def quarter_turned(content: bytes, turns: int) -> bytes:
    """Return a multi-order map turned about the poles by quarters: base faces of a ring change places, exactly."""
    with fits.open(io.BytesIO(content)) as opened:
        uniq = opened[1].data["UNIQ"].astype(np.int64)
        order, cell = healpix.from_uniq(uniq)
        face, within = cell >> (2 * order), cell & ((np.int64(1) << (2 * order)) - 1)
        turned = face & ~3 | (face + turns) & 3
        opened[1].data["UNIQ"] = healpix.to_uniq(order, (turned << (2 * order)) + within)
        opened[1].header["OBJECT"] = f"turned {turns}"
        out = io.BytesIO()
        opened.writeto(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def files(real: Path | None, memory: Path) -> list[Path]:
    """Files of maps, so many as are asked for; each of some thirty different ones stands there several times."""
    if real is None:
        pytest.skip("made of real sky maps only")
    ask_skymaps()  # a new version of a kernel is compiled here, not while something is measured
    contents = [file.read_bytes() for file in sorted((real / "skymaps").glob("*.fits"))]
    made = [quarter_turned(content, turns) for turns in range(4) for content in contents]
    paths = [memory / f"map-{number}.fits" for number in range(MAPS)]
    for number, path in enumerate(paths):
        path.write_bytes(made[number % len(made)])
    return paths


def load(paths: list[Path]) -> list[SkyMap]:
    return [skymap.parse_skymap(path.read_bytes(), f"m{number}") for number, path in enumerate(paths)]


def load_theirs(path: Path) -> Table:
    from ligo.skymap.io import read_sky_map

    return read_sky_map(str(path), moc=True)["UNIQ", "PROBDENSITY"]  # without distance: else it sorts voxels as well


def prepare(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    cells = healpix.ang2pix(29, ra, dec)
    return cells[np.argsort(cells)]


def test_many_maps(files: list[Path], board: Board) -> None:
    from ligo.skymap.postprocess import crossmatch

    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, POSITIONS), np.degrees(np.arcsin(rng.uniform(-1, 1, POSITIONS)))
    maps, cells = load(files), prepare(ra, dec)
    some = files[:: MAPS // THEIRS][:THEIRS]
    tables = [load_theirs(path) for path in some]
    coordinates = SkyCoord(ra * u.deg, dec * u.deg)
    for number, table in zip(range(0, MAPS, MAPS // THEIRS), tables, strict=False):
        check(maps[number], crossmatch(table, coordinates).searched_prob, ra, dec)

    def ours() -> int:
        """Take the maps one after another, as ligo.skymap does, and keep no answer."""
        return sum(len(sweep.inside(one, cells, LEVEL).row) for one in maps)

    def with_loading() -> None:
        places = prepare(ra, dec)
        for one in load(files):
            sweep.inside(one, places, LEVEL)

    def theirs_with_loading() -> None:
        places = SkyCoord(ra * u.deg, dec * u.deg)
        for path in some:
            crossmatch(load_theirs(path), places)

    def theirs() -> None:
        for table in tables:
            crossmatch(table, coordinates)

    def all_levels() -> None:
        for one in maps:
            sweep.levels_sorted(one, cells)

    calls = {
        "ours": ours,
        "ours, all pairs kept": partial(sweep.pairs, maps, cells, LEVEL),
        "ours, every level": all_levels,
        "ours, with loading": with_loading,
        "ligo.skymap": theirs,
        "ligo.skymap, with loading": theirs_with_loading,
    }
    found = len(sweep.pairs(maps, cells, LEVEL).row)  # memory touched for the first time costs more than the kernel
    assert found == ours()
    with pinned():
        times = interleaved({name: partial(steady_cpu_seconds, call) for name, call in calls.items()})
    scale = MAPS / len(some)
    for name in ("ligo.skymap", "ligo.skymap, with loading"):
        times[name] = [seconds * scale for seconds in times[name]]
    board.head(
        f"sky maps: {MAPS} multi-order maps x {POSITIONS:,} positions, {found:,} pairs within 90 %; CPU, one core"
    )
    for name in calls:
        told = f"measured on {len(some)} maps, scaled linearly" if "ligo" in name else ""
        board.add(f"skymap_{name}", f"  {name}", median(times[name]), "s", told)
    over = partial(median_ratio, times["ligo.skymap"])
    board.bar("skymap_prepared", "  ours over ligo.skymap", over(times["ours"]), "times", at_least=PREPARED)
    board.add("skymap_levels", "  ours, every level, over ligo.skymap", over(times["ours, every level"]), "times")
    loaded = median_ratio(times["ligo.skymap, with loading"], times["ours, with loading"])
    board.bar("skymap_loaded", "  ours over ligo.skymap, with loading", loaded, "times", at_least=WITH_LOADING)
    board.judge()


def check(ours: SkyMap, theirs: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> None:
    """Compare levels: equal, or within the tie group to whose end ours are set."""
    cells = healpix.ang2pix(29, ra, dec)
    mine = skymap.levels(ours, cells)[0]
    lower = mine - tie_masses(ours)[skymap.rows_at(ours, cells)]
    assert ((theirs <= mine + 1e-4) & (theirs >= lower - 1e-4)).all()


def tie_masses(ours: SkyMap) -> np.ndarray:
    """Probability of all places exactly as dense as each row of the map."""
    _, group = np.unique(ours.density_per_deg2, return_inverse=True)
    return np.bincount(group, ours.density_per_deg2 * ours.area_deg2)[group]


def test_volume_levels(files: list[Path], board: Board) -> None:
    """Hosts at a distance: the table of the map is made anew in each call, as ligo.skymap sorts its voxels in each."""
    from ligo.skymap.io import read_sky_map
    from ligo.skymap.postprocess import crossmatch

    rng = np.random.default_rng(2)
    table = read_sky_map(str(files[0]), moc=True)
    ra, dec = rng.uniform(0, 360, HOSTS), np.degrees(np.arcsin(rng.uniform(-1, 1, HOSTS)))
    distance = np.abs(rng.normal(800.0, 200.0, HOSTS)) + 10.0
    places = SkyCoord(ra * u.deg, dec * u.deg, distance * u.Mpc)
    cells = healpix.ang2pix(29, ra, dec)

    def ours(error: float | None) -> np.ndarray:
        return skymap.volume_levels(load(files[:1])[0], cells, distance, error)

    calls = {
        "ours": partial(ours, None),
        "ours, distances with errors": partial(ours, 50.0),
        "ligo.skymap": partial(crossmatch, table, places),
    }
    with pinned():
        times = interleaved({name: partial(steady_cpu_seconds, call) for name, call in calls.items()})
    board.head(f"credible volumes: one multi-order map x {HOSTS:,} hosts, loading the map counted on our side; CPU")
    for name in calls:
        board.add(f"volume_{name}", f"  {name}", median(times[name]), "s")
    ratio = median_ratio(times["ligo.skymap"], times["ours"])
    board.add("volume_over_ligo", "  ours over ligo.skymap", ratio, "times")
