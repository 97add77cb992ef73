"""Writes a small valid archive, so that readers are tested without running the pipeline."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits

from pipeline import healpix
from pipeline.schema import column, from_columns
from pipeline.stages import host
from pipeline.store.ledger import write_ledger, zero_counts
from pipeline.store.parts import pruning, write_part
from pipeline.store.root import Root, open_root
from pipeline.tables import ALERTS, EXPOSURES, FLAT, LINKS, PROVENANCE, REJECTS

ADDED = [
    column("xm_galaxies_separation_arcsec", pa.float64(), unit="arcsec", doc="nearest galaxy"),
    column("xm_galaxies_name", pa.string(), doc="its name"),
    column("xm_galaxies_lum_dist_mpc", pa.float64(), unit="Mpc", doc="its luminosity distance"),
    column("xm_variables_type", pa.string(), doc="type of variable star"),
    column("skymap_s1_credible_level", pa.float64(), doc="credible level"),
    column("clf_demo_score", pa.float32(), doc="classifier score"),
    column("filter_kilonova", pa.bool_(), nullable=False, doc="kilonova candidates"),
    column("filter_bright", pa.bool_(), nullable=False, doc="bright"),
]
SCIENCE = pa.schema([*FLAT, *ADDED])
HOSTED = pa.schema([*SCIENCE, *host.produces()])
CUTOUT = pa.struct([("fileName", pa.string()), ("stampData", pa.binary())])
CUTOUTS = pa.schema(
    [pa.field("alert_id", pa.int64())]
    + [pa.field(f"cutout{kind}", CUTOUT) for kind in ("Science", "Template", "Difference")]
)
RAW = pa.schema(
    [
        pa.field("alert_id", pa.int64()),
        pa.field("schema_version", pa.string()),
        pa.field("objectId", pa.string()),
        pa.field("candidate", pa.struct([("magpsf", pa.float32()), ("ra", pa.float64())])),
    ]
)
FIRST_ID = 2**53 + 1  # one past what a float64 can hold


def write_archive(
    folder: Path,
    nights: dict[int, list[int]] | None = None,
    *,
    survey: str = "ztf",
    seed: int = 1,
    hosts: bool = False,
) -> Root:
    """Write an archive of ``{night: [rows of each part]}``; every night lies in its own decade of right ascension."""
    root = open_root(folder, create=True)
    nights = {20181129: [40, 30], 20181130: [20], 20181202: []} if nights is None else nights
    for number, (night, sizes) in enumerate(nights.items()):
        write_night(root, survey, night, sizes, number=number, seed=seed, hosts=hosts)
    return root


def write_night(
    root: Root, survey: str, night: int, sizes: list[int], *, number: int = 0, seed: int = 1, hosts: bool = False
) -> None:
    """Write one night and its ledger."""
    parts: list[dict[str, Any]] = []
    exposures = links = 0
    for index, rows in enumerate(sizes):
        rng = np.random.default_rng([seed, night, index])
        alerts = alerts_table(rng, rows, first_id=FIRST_ID + night * 1000 + index * 100, number=number, index=index)
        tables = {
            "raw": (raw_table(alerts), RAW),
            "cutouts": (cutouts_table(alerts, rng), CUTOUTS),
            "alerts": (alerts, ALERTS),
            "provenance": (provenance_table(alerts), PROVENANCE),
            "science": (science_table(alerts, rng), SCIENCE),
        }
        if hosts:
            tables["science"] = (with_hosts(tables["science"][0]), HOSTED)
        name = f"part-0000000{number}-{index:05d}-000"
        files = {key: _write(root, survey, key, night, name, table, schema) for key, (table, schema) in tables.items()}
        parts.append({"name": name, "rows": rows, "source": 0, **pruning(alerts), "files": files})
    night_files: dict[str, list[dict[str, Any]]] = {"exposures": [], "links": [], "rejects": []}
    if sizes:
        extra = {"exposures": exposures_table(number), "links": links_table(night), "rejects": rejects_table(night)}
        schemas = {"exposures": EXPOSURES, "links": LINKS, "rejects": REJECTS}
        night_files = {
            key: [_write(root, survey, key, night, "part-00000-000", table, schemas[key])]
            for key, table in extra.items()
        }
        night_files["rejects"][0]["source"] = f"dump_{night}.tar.gz"
        exposures, links = extra["exposures"].num_rows, extra["links"].num_rows
    written = sum(sizes)
    counts = zero_counts() | {"packets_in": written + 3 * bool(sizes), "written": written}
    counts |= {"duplicates": 1, "rejected": 2} if sizes else {}
    source = {
        "number": 0,
        "name": f"dump_{night}.tar.gz",
        "size": 123_456,
        "mtime_ns": 0,
        "sha256": "0" * 64,
        "origin": "native",
        "packets": counts["packets_in"],
        "counts": counts,
    }
    ledger = {
        "layout": 1,
        "survey": survey,
        "night": str(night),
        "status": "complete",
        "release": "main",
        "counts": counts,
        "reasons": {"undecodable": 2, "duplicate": 1} if sizes else {},
        "sources": [source],
        "parts": parts,
        "night_files": night_files,
        "bytes": {key: sum(part["files"][key]["bytes"] for part in parts) for key in ("raw", "alerts", "science")},
        "groups": {"clf_demo": {"version": 1, "key": "0" * 32, "digests": {}}},
        "timing": [{"stage": "decode", "seconds": 2.5, "tasks": 1}, {"stage": "enrich", "seconds": 4.25, "tasks": 2}],
        "environment": {"alertmill": "0.1.0"},
        "settings": {},
    }
    assert exposures >= 0 and links >= 0
    write_ledger(root, ledger, night)


def _write(
    root: Root, survey: str, dataset: str, night: int, name: str, table: pa.Table, schema: pa.Schema
) -> dict[str, Any]:
    released = "/main" if dataset in ("science", "links") else ""
    folder = f"{survey}/{dataset}{released}/night={night}"
    receipt = write_part(table, schema, root.path(folder), f"{name}.{{content}}.parquet", dataset=dataset)
    return receipt.as_dict() | {"path": f"{folder}/{receipt.path}"}


def alerts_table(rng: np.random.Generator, rows: int, *, first_id: int, number: int = 0, index: int = 0) -> pa.Table:
    """Return random alerts around (ra = 40 number + 10 index, dec = 20)."""
    ra = (40.0 * number + 10.0 * index + rng.uniform(-2, 2, rows)) % 360
    dec = 20.0 + rng.uniform(-2, 2, rows)
    mjd = 58451.0 + number + 0.2 * index + np.sort(rng.uniform(0.1, 0.3, rows))
    band = np.where(rng.random(rows) < 0.5, "g", "r")
    mag = rng.uniform(15.5, 20.0, rows)
    flux = 10 ** (0.4 * (31.4 - mag)) * np.where(rng.random(rows) < 0.9, 1, -1)
    columns: dict[str, Any] = {field.name: pa.nulls(rows, field.type) for field in FLAT}
    columns |= {
        "alert_id": first_id + np.arange(rows),
        "object_key": [f"ZTF18aaa{first_id % 10_000_000 + row:08d}" for row in range(rows)],
        "ra": ra,
        "dec": dec,
        "healpix_29": healpix.ang2pix(29, ra, dec),
        "mjd": mjd,
        "utc_date": np.full(rows, 20181129 + number, dtype=np.int32),
        "band": band.tolist(),
        "exposure": 697_000 + np.arange(rows) // 10,
        "flux_njy": flux,
        "flux_err_njy": np.abs(flux) * 0.05,
        "is_positive": flux > 0,
        "diff_mag": mag,
        "diff_err_mag": np.full(rows, 0.054),
        "limit_mag": np.full(rows, 20.5),
        "seeing_arcsec": np.full(rows, 2.0, dtype=np.float32),
        "reliability": rng.uniform(0, 1, rows).astype(np.float32),
        "is_good_quality": np.ones(rows, dtype=bool),
        "is_solar_system": rng.random(rows) < 0.1,
        "is_injected": np.zeros(rows, dtype=bool),
        "is_public": np.ones(rows, dtype=bool),
        "n_detections": np.full(rows, 3, dtype=np.int32),
        "n_light_curve": np.full(rows, 5, dtype=np.int32),
        "n_upper_limits": np.full(rows, 2, dtype=np.int32),
        "light_curve": [_light_curve(t, f, b) for t, f, b in zip(mjd, flux, band, strict=True)],
        "upper_limits": [
            {
                "mjd": [t - 12, t - 9],
                "flux_limit_njy": [30_000.0, 25_000.0],
                "band": ["g", "r"],
                "exposure": [1, 2],
            }
            for t in mjd
        ],
    }
    return from_columns(columns, ALERTS)


def _light_curve(mjd: float, flux: float, band: str) -> dict[str, list[Any]]:
    """Three detections that rise to the trigger, and two forced points of which one is not significant."""
    scale = np.array([0.01, 0.3, 0.5, 0.7, 1.0])
    other = "r" if band == "g" else "g"
    return {
        "mjd": [mjd - 8, mjd - 6, mjd - 4, mjd - 2, mjd],
        "flux_njy": (flux * scale).tolist(),
        "flux_err_njy": [abs(flux) * 0.05] * 5,
        "band": [band, band, other, band, band],
        "is_forced": [True, True, False, False, False],
        "exposure": [10, 11, 12, 13, 14],
        "total_flux_njy": [None] * 5,
        "total_flux_err_njy": [None] * 5,
        "reference": [None] * 5,
    }


def science_table(alerts: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return the flat columns with what enrichment would add; row 3 is a kilonova in the sky map."""
    rows = alerts.num_rows
    near = np.arange(rows) % 3 == 0
    kilonova = np.arange(rows) == 3
    added = {
        "xm_galaxies_separation_arcsec": pa.array(rng.uniform(0, 5, rows), mask=~near),
        "xm_galaxies_name": pa.array([f"NGC{row}" for row in range(rows)], mask=~near),
        "xm_galaxies_lum_dist_mpc": pa.array(rng.uniform(30, 200, rows), mask=~near),
        "xm_variables_type": pa.array(np.where(rng.random(rows) < 0.5, "RRAB", "EA").tolist(), mask=near),
        "skymap_s1_credible_level": pa.array(np.where(kilonova, 0.1, 0.99)),
        "clf_demo_score": pa.array(rng.uniform(0, 1, rows).astype(np.float32), mask=np.arange(rows) % 5 == 0),
        "filter_kilonova": pa.array(kilonova),
        "filter_bright": pa.array(alerts.column("diff_mag").to_numpy() < 17),
    }
    flat = {name: alerts.column(name) for name in FLAT.names}
    return from_columns(flat | added, SCIENCE)


def with_hosts(science: pa.Table) -> pa.Table:
    """Return the science table with a host where a galaxy matched; of every sixth row the distance's error is known."""
    near = science.column("xm_galaxies_name").is_valid()
    rows = np.arange(science.num_rows)
    numbers = {
        "host_separation_arcsec": science.column("xm_galaxies_separation_arcsec").to_numpy(),
        "host_separation_kpc": 1.0 + rows % 7,
        "host_distance_mpc": science.column("xm_galaxies_lum_dist_mpc").to_numpy(),
        "host_distance_err_mpc": np.where(rows % 6 == 0, 4.5, np.nan),
        "host_redshift": np.where(rows % 2 == 0, 0.03, np.nan),
    }
    texts = {"host_catalog": pa.array(["galaxies"] * len(rows)), "host_name": science.column("xm_galaxies_name")}
    texts["host_alias"] = pa.array([f"2MASS {row}" for row in rows.tolist()])
    columns = {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in numbers.items()}
    columns |= {
        name: values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        for name, values in texts.items()
    }
    for item in host.produces():
        values = columns.get(item.name, pa.nulls(len(rows), item.type))
        science = science.append_column(item, pc.if_else(near, values, pa.scalar(None, item.type)))
    return science


def raw_table(alerts: pa.Table) -> pa.Table:
    """Return native columns; ``candidate.ra`` is deliberately not the canonical position."""
    candidate = [{"magpsf": mag, "ra": 0.0} for mag in alerts.column("diff_mag").to_numpy().astype(np.float32).tolist()]
    columns = {
        "alert_id": alerts.column("alert_id"),
        "schema_version": ["3.3"] * alerts.num_rows,
        "objectId": alerts.column("object_key"),
        "candidate": candidate,
    }
    return from_columns(columns, RAW)


def stamp(seed: int, *, side: int = 63, peak: float = 500.0, wcs: bool = False, packed: bool = True) -> bytes:
    """Return a FITS stamp with a source at its centre and a fainter one right above (row + 15)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side // 2
    image = rng.normal(100, 8, (side, side)) + peak * np.exp(-(x**2 + y**2) / 8)
    image += 0.5 * peak * np.exp(-(x**2 + (y - 15) ** 2) / 8)
    image[0, :3] = np.nan
    header = fits.Header()
    if wcs:
        header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 32.0, "CRPIX2": 32.0})
        header.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CD1_1": 2.8e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2.8e-4})
    buffer = io.BytesIO()
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(buffer)
    return gzip.compress(buffer.getvalue(), mtime=0) if packed else buffer.getvalue()


def cutouts_table(alerts: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return three stamps an alert; row 1 has a damaged difference stamp, row 2 none at all."""
    columns: dict[str, Any] = {"alert_id": alerts.column("alert_id")}
    for kind, peak in (("Science", 500.0), ("Template", 100.0), ("Difference", 400.0)):
        shared = [stamp(seed, peak=peak) for seed in range(3)]
        values: list[Any] = [
            {"fileName": f"{kind}.fits.gz", "stampData": shared[row % 3]} for row in range(alerts.num_rows)
        ]
        if len(values) > 2:
            values[2] = None
            if kind == "Difference":
                values[1] = {"fileName": "damaged", "stampData": b"not a stamp"}
        columns[f"cutout{kind}"] = values
    return from_columns(columns, CUTOUTS)


def provenance_table(alerts: pa.Table) -> pa.Table:
    rows = alerts.num_rows
    columns = {
        "alert_id": alerts.column("alert_id"),
        "source_number": np.zeros(rows, dtype=np.int32),
        "member": [f"{row}.avro" for row in range(rows)],
        "offset": np.zeros(rows, dtype=np.int64),
        "length": np.full(rows, 1000),
        "body_sha256": [bytes(32)] * rows,
        "writer_schema_id": ["3.3-00000000"] * rows,
        "processed_mjd": pa.nulls(rows, pa.float64()),
    }
    return from_columns(columns, PROVENANCE)


def exposures_table(number: int) -> pa.Table:
    columns = {
        "exposure": np.arange(4) + 697_000,
        "detector": np.arange(4, dtype=np.int32),
        "field": np.full(4, 600, dtype=np.int32),
        "mjd": 58451.1 + number + 0.01 * np.arange(4),
        "band": ["g", "r", "g", "r"],
        "limit_mag": [20.4, 20.5, 20.6, None],
        "seeing_arcsec": np.full(4, 2.1, dtype=np.float32),
        "n_alerts": np.full(4, 10, dtype=np.int32),
        "cells": [[1, 2]] * 4,
    }
    return from_columns(columns, EXPOSURES)


def links_table(night: int) -> pa.Table:
    """Return one streak of the first five alerts of the night."""
    columns = {
        "alert_id": FIRST_ID + night * 1000 + np.arange(5),
        "module": ["streaks"] * 5,
        "link_id": ["s1"] * 5,
        "score": [0.9] * 5,
    }
    return from_columns(columns, LINKS)


def rejects_table(night: int) -> pa.Table:
    columns = {
        "reason": ["undecodable", "undecodable"],
        "detail": ["field candidate", "field <b>candid</b>"],
        "source": [f"dump_{night}.tar.gz"] * 2,
        "member": ["a.avro", "b.avro"],
        "offset": [0, 10],
        "length": [10, 10],
        "alert_id": [None, None],
        "night": [None, None],
        "body_sha256": [bytes(32)] * 2,
        "body": [b"x", b"y"],
        "writer_schema_id": [None, None],
    }
    return from_columns(columns, REJECTS)
