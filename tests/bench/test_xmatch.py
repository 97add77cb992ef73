"""Cross-match, one core: ours beside astropy and a scipy cKDTree, and how it grows with the catalog, in CPU time.

Every contestant's matches are compared with ours before they are timed. Nothing is asserted of speed: the wanted ratios
stand beside the measured ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from measuring import Board, cpu_seconds, interleaved, median, median_ratio, pinned, steady_cpu_seconds
from scipy.spatial import cKDTree

from pipeline.healpix import ang2pix, pix2ang
from pipeline.warm import match_others
from pipeline.xmatch import (
    MatchIndex,
    Positions,
    build_classes,
    build_index,
    build_motion_classes,
    index_sorted,
    nearest,
    nearest_at,
    nearest_moving,
    within_at,
    within_reach,
)

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

ROWS = int(os.environ.get("ALERTMILL_BENCH_ROWS", "10000000"))
"""Rows of the catalog that astropy and the tree can take."""
LARGEST = int(os.environ.get("ALERTMILL_BENCH_LARGEST", "10000000"))
"""Rows of the largest catalog, memory-mapped; 100000000 needs 4 GB of disk and as much memory to stay warm."""
ALERTS = 100_000
MANY_ALERTS = 1_000_000
RADIUS_ARCSEC = 2.0
GALAXIES = 3_000_000


def around(index: MatchIndex, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Six alerts of ten half an arcsecond beside a source, the others anywhere; in no order."""
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    beside = n * 6 // 10
    row = rng.integers(0, len(index), beside)
    ra[:beside] = index.ra[row] + rng.normal(0, 0.5 / 3600, beside)
    dec[:beside] = np.clip(index.dec[row] + rng.normal(0, 0.5 / 3600, beside), -90, 90)
    turned = rng.permutation(n)
    return ra[turned], dec[turned]


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def test_beside_astropy_and_a_tree(board: Board) -> None:
    match_others()  # a new version of a kernel is compiled here, not while something is measured
    rng = np.random.default_rng(1)
    index, _ = build_index(rng.uniform(0, 360, ROWS), np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS))))
    ra, dec = around(index, ALERTS, rng)
    vectors, chord = unit_vectors(ra, dec), 2 * np.sin(np.radians(RADIUS_ARCSEC / 3600) / 2)
    sky_order = np.argsort(ang2pix(29, ra, dec))
    ordered = vectors[sky_order]
    with pinned():
        tree = cKDTree(unit_vectors(index.ra, index.dec), balanced_tree=False, compact_nodes=False)
        sources, alerts = SkyCoord(index.ra, index.dec, unit="deg"), SkyCoord(ra, dec, unit="deg")
        positions = Positions(ra, dec)
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda: nearest(ra, dec, RADIUS_ARCSEC, index),
            "ours, positions prepared": lambda: nearest_at(positions, RADIUS_ARCSEC, index),
            "ours, every pair": lambda: within_at(positions, RADIUS_ARCSEC, index),
            "cKDTree, query only": lambda: tree.query(vectors, distance_upper_bound=chord),
            "cKDTree, query only, alerts in sky order": lambda: tree.query(ordered, distance_upper_bound=chord),
        }
        found = nearest(ra, dec, RADIUS_ARCSEC, index)
        theirs = tree.query(vectors, distance_upper_bound=chord)[1]
        assert (np.where(found.row < 0, ROWS, found.row) == theirs).all()
        row, separation, _ = alerts.match_to_catalog_sky(sources)  # builds its own tree, and keeps it
        assert (np.where(separation <= RADIUS_ARCSEC * u.arcsec, row, -1) == found.row).all()
        times = interleaved({name: lambda call=call: steady_cpu_seconds(call) for name, call in calls.items()})

        def afresh() -> None:
            sources.cache.clear()
            alerts.match_to_catalog_sky(sources)

        astropy_times = [cpu_seconds(afresh) for _ in times["ours"]]
        times["astropy match_to_catalog_sky"] = astropy_times
        times["astropy, tree kept"] = [cpu_seconds(lambda: alerts.match_to_catalog_sky(sources)) for _ in times["ours"]]
    board.head(f"cross-match: {ALERTS:,} alerts, {ROWS:,} rows, {RADIUS_ARCSEC:g} arcsec; CPU time of one core")
    for name, seconds in times.items():
        board.add(f"xmatch_{_key(name)}", f"  {name}", median(seconds) / ALERTS * 1e6, "us/alert")
    wanted = {"cKDTree, query only": 3, "astropy match_to_catalog_sky": 50, "astropy, tree kept": None}
    for name, least in {**wanted, "cKDTree, query only, alerts in sky order": None}.items():
        ratio = median_ratio(times[name], times["ours"])
        told = f"wanted at least {least}" if least else ""
        board.add(f"xmatch_over_{_key(name)}", f"  ours over {name}", ratio, "times", told)


def _key(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def mapped_catalog(rows: int, folder: Path) -> MatchIndex:
    """Make a catalog of random cells, as files; a hundred million rows would not fit twice."""
    cells = np.sort(np.random.default_rng(rows).integers(0, 12 << 58, rows))
    arrays = [np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float64, (rows,)) for name in ("ra", "dec")]
    for start in range(0, rows, 10_000_000):
        piece = slice(start, start + 10_000_000)
        for array, values in zip(arrays, pix2ang(29, cells[piece]), strict=True):
            array[piece] = values
    index = index_sorted(cells, *arrays)
    np.save(folder / "cells.npy", cells)
    np.save(folder / "offsets.npy", index.offsets)
    mapped = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("cells", "ra", "dec", "offsets"))
    return MatchIndex(*(array.view(np.ndarray) for array in mapped), index.order)


def test_growth_with_the_catalog(board: Board, tmp_path: Path) -> None:
    match_others()
    sizes = [size for size in (1_000_000, 10_000_000, 100_000_000) if size <= LARGEST]
    calls: dict[str, Callable[[], Any]] = {}
    for size in sizes:
        (tmp_path / str(size)).mkdir()
        index = mapped_catalog(size, tmp_path / str(size))
        ra, dec = around(index, MANY_ALERTS, np.random.default_rng(size))
        cells = ang2pix(29, ra, dec)
        by = np.argsort(cells)
        ra, dec, cells = ra[by], dec[by], cells[by]

        def match(ra=ra, dec=dec, cells=cells, index=index) -> None:  # type: ignore[no-untyped-def]
            nearest_at(Positions(ra, dec, cells), RADIUS_ARCSEC, index)

        def all_within(ra=ra, dec=dec, cells=cells, index=index) -> None:  # type: ignore[no-untyped-def]
            within_at(Positions(ra, dec, cells), 60.0, index)

        calls[f"{size:,} rows, nearest in 2 arcsec"] = match
        calls[f"{size:,} rows, all in 60 arcsec"] = all_within
        match(), all_within()
    with pinned():
        times = interleaved({name: lambda call=call: steady_cpu_seconds(call) for name, call in calls.items()})
    board.head(f"cross-match: {MANY_ALERTS:,} alerts in sky order, memory-mapped catalogs; CPU time of one core")
    for name, seconds in times.items():
        board.add(f"xmatch_{_key(name)}", f"  {name}", median(seconds) / MANY_ALERTS * 1e6, "us/alert")
    nearest_times = [seconds for name, seconds in times.items() if "nearest" in name]
    ratio = median_ratio(nearest_times[-1], nearest_times[0])
    board.add("xmatch_growth", f"  {sizes[-1]:,} over {sizes[0]:,} rows", ratio, "times", "wanted at most 2.5")


def test_reach_and_motion(board: Board) -> None:
    match_others()
    rng = np.random.default_rng(2)
    distance_mpc = np.maximum(500 * rng.random(GALAXIES) ** (1 / 3), 1.0)
    index, rows = build_index(rng.uniform(0, 360, GALAXIES), np.degrees(np.arcsin(rng.uniform(-1, 1, GALAXIES))))
    classes = build_classes(index, np.degrees(0.03 / distance_mpc[rows]) * 3600)
    pmra, pmdec = (rng.standard_t(1.5, GALAXIES) * 5 for _ in range(2))
    moving = build_motion_classes(index, pmra, pmdec)
    positions = Positions(*around(index, ALERTS, rng))
    calls: dict[str, Callable[[], Any]] = {
        f"30 kpc, {classes.count} classes": lambda: within_reach(positions, classes),
        f"proper motion over 8 years, {moving.count} classes": lambda: nearest_moving(
            positions, 2024.0, RADIUS_ARCSEC, index, moving, pmra, pmdec, 2016.0
        ),
        "without motion": lambda: nearest_at(positions, RADIUS_ARCSEC, index),
    }
    with pinned():
        times = interleaved({name: lambda call=call: steady_cpu_seconds(call) for name, call in calls.items()})
    board.head(f"cross-match: {ALERTS:,} alerts, {GALAXIES:,} sources of their own reach; CPU time of one core")
    for name, seconds in times.items():
        board.add(f"xmatch_{_key(name.split(',')[0])}", f"  {name}", median(seconds) / ALERTS * 1e6, "us/alert")
