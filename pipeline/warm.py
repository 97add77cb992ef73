"""Compile the numba kernels once, by running tiny simulated nights; ``python -m pipeline.warm``, from ``make setup``.

Numba keeps what it compiles beside the source (or in the user's cache), so that every later process only loads it.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import time
from pathlib import Path

import fastavro
import numpy as np

from pipeline import catalogs, healpix, xmatch
from pipeline.config import Config, Execution
from pipeline.dumps import Reader, datums, list_sources, segments
from pipeline.dumps.deflate import HEADER_BYTES, find_block
from pipeline.nights import drive
from pipeline.nights.run import prepare
from pipeline.simulation import simulate
from pipeline.skymap import SKY_DEG2, fisher_skymap, make_skymap, sweep, volume_levels

_NIGHT = 20240101
_ALERTS = 400
"""Enough for a glint streak, so that the night modules find something too."""
_CATALOGS = ("sim_agn", "sim_galaxies", "sim_variables")


def warm(surveys: tuple[str, ...] = ("ztf", "lsst")) -> int:
    """Run a tiny simulated night of each survey serially into a temporary folder; return how many alerts it wrote."""
    with tempfile.TemporaryDirectory(prefix="alertmill-warm-") as folder:
        return sum(_run_night(Path(folder) / survey, survey) for survey in surveys)


def _run_night(folder: Path, survey: str) -> int:
    made = simulate(_NIGHT, survey, _ALERTS, 0, folder)
    read_others(made.dump)
    match_others()
    ask_skymaps()
    for name in _CATALOGS:
        source = folder / "catalogs" / f"{name}.parquet"
        catalogs.build(catalogs.get_declaration(name), source, folder / "built" / name)
    settings = Config(
        root=str(folder / "data"),
        survey=survey,
        catalogs=_CATALOGS,
        catalog_folder=str(folder / "built"),
        skymaps=(f"{made.event}={made.skymap}",),
        execution=Execution(mode="serial"),
    )
    outcome = drive.run_direct(prepare(settings, [str(made.dump)]))
    for error in outcome.errors.values():
        raise error
    return sum(int(ledger["counts"]["written"]) for ledger in outcome.ledgers.values())


def read_others(dump: Path) -> int:
    """Do what a night in a plain archive does not need: search for deflate blocks, read a container of two packets.

    Returns
    -------
    int
        Packets read from a container that is written beside ``dump``.
    """
    find_block(np.frombuffer(bytes(2 * HEADER_BYTES), np.uint8), 0, HEADER_BYTES)
    with tarfile.open(dump) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()[:2]]
        readers = [fastavro.reader(file) for file in files if file is not None]
        packets = [packet for reader in readers for packet in reader]
    container = dump.with_suffix(".avro")
    with container.open("wb") as file:
        fastavro.writer(file, readers[0].writer_schema, packets, sync_interval=1 << 30)  # in one block
    return sum(1 for segment in segments(list_sources([str(container)])[0]) for _ in datums(segment, Reader()))


def ask_skymaps() -> int:
    """Ask a map in bulk and in volume, which a night need not; return how many pairs of map and position there were."""
    circle = fisher_skymap("warm", None, 10.0, 20.0, 5.0)
    one = np.ones(1)
    distances = {"distance_mu_mpc": 40.0 * one, "distance_sigma_mpc": 5.0 * one, "distance_norm": one / 1625.0}
    start, stop = healpix.ALL_SKY.T.copy()
    whole = make_skymap("warm", None, start, stop, one / SKY_DEG2, distances)
    volume_levels(whole, [0, 0], [40.0, 50.0], [0.0, 5.0])
    healpix.nested_of(0, [0])
    sweep.levels_sorted(circle, circle.start)
    return len(sweep.pairs([circle], circle.start, 0.9).row)


def match_others() -> int:
    """Match as a night does not: all within a radius, within each source's reach, where sources have moved to.

    Returns
    -------
    int
        Pairs found.
    """
    index, _ = xmatch.build_index([0.0, 180.0], [0.0, 0.0])
    motion = np.full(2, 1000.0)
    positions = xmatch.Positions([0.0, 180.0], [0.0, 0.0])
    found = len(xmatch.within_at(positions, 1.0, index))
    found += len(xmatch.within_reach(positions, xmatch.build_classes(index, motion)))
    moving = xmatch.build_motion_classes(index, motion, motion)
    xmatch.propagate(index.ra, index.dec, motion, motion, 0.0)
    return found + len(xmatch.within_moving(positions, 2000.0, 1.0, index, moving, motion, motion, 2000.0))


def main() -> None:
    """Compile, and say so in one line."""
    started = time.perf_counter()
    written = warm()
    sys.stdout.write(
        f"kernels compiled in {time.perf_counter() - started:.0f} s (by running {written} simulated alerts)\n"
    )


if __name__ == "__main__":
    main()
