"""Catalogs built from their real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import catalogs
from pipeline.xmatch import Positions, within_reach

REAL = {
    "mangrove": (["mangrove.parquet"], 295_341, 0),
    "vsx": (["vsx_compact.parquet"], 1_933_544, 0),
    "gcvs": (["gcvs.parquet"], 59_099, 0),
    "spicy": (["spicy.parquet"], 117_446, 0),
    "x3hsp": (["3hsp.csv"], 2_013, 0),
    "x4lac": (["table-4LAC-DR3-h.fits", "table-4LAC-DR3-l.fits"], 3_814, 0),
    "tns": (["tns_raw_sample.parquet"], 3, 0),
    "openngc": (["openngc.csv.gz"], 13_962, 7),
}


# Kept by nobody in these files: a sample of three entries has no value in every column.
SPARSE = {"tns"}


@pytest.mark.parametrize("name", REAL)
def test_real_catalog(name: str, shared_data: Path, tmp_path: Path) -> None:
    files, rows, without_position = REAL[name]
    paths = [shared_data / "catalogs" / file for file in files]
    catalog = catalogs.build(catalogs.get_declaration(name), paths, tmp_path / name)
    assert (catalog.rows, catalog.rows_without_position) == (rows, without_position)
    catalog.verify()
    table = catalog.take(np.arange(0, rows, max(1, rows // 1000)), [item.name for item in catalog.declaration.columns])
    for column in table.columns:
        assert column.null_count < len(column) or name in SPARSE
        if pa.types.is_string(column.type):
            assert all(text is None or (text and text == text.strip()) for text in column.to_pylist())


def test_entries_of_the_transient_server_are_dated(shared_data: Path, tmp_path: Path) -> None:
    """SN 2018lzf was discovered in August 2018 but entered in October 2021: as of 2020 there was no such entry."""
    file = shared_data / "catalogs" / "tns_raw_sample.parquet"
    declaration = catalogs.get_declaration("tns")
    assert declaration.snapshot
    catalog = catalogs.build(declaration, file, tmp_path / "tns", snapshot_date="2026-02-10")
    assert catalog.snapshot_date == "2026-02-10"
    names = ["name", "prefix", "type", "redshift", "discovery_utc", "created_utc", "modified_utc"]
    rows = {row["name"]: row for row in catalog.take(np.arange(3), names).to_pylist()}
    assert rows["2018lzf"] == {
        **{"name": "2018lzf", "prefix": "SN", "type": "SN Ia", "redshift": 0.074},
        **{"discovery_utc": "2018-08-28 09:25:55.200", "created_utc": "2021-10-27 14:07:33"},
        **{"modified_utc": "2021-10-28 16:01:31"},
    }
    assert rows["2026cqa"]["type"] is None
    assert [name for name, row in rows.items() if row["created_utc"] <= "2021-12-31"] == ["2018lzf"]


def test_hosts_of_mangrove_reach_as_far_as_their_distance_says(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "catalogs" / "mangrove.parquet"
    catalog = catalogs.build(catalogs.get_declaration("mangrove"), file, tmp_path / "mangrove")
    classes = catalog.classes("host")
    assert classes is not None
    # NGC3052: 30 kpc at 56.2777 Mpc are 109.95 arcsec; 12.579 arcsec from it are 3.432 kpc.
    found = within_reach(Positions([148.6188113], [-18.6363575]), classes)
    table = catalog.take(found.row, ["hyperleda_name", "ang_dist_mpc"])
    assert table["hyperleda_name"].to_pylist() == ["NGC3052"]
    reach = classes.reach_arcsec[classes.rows == found.row[0]]
    assert reach[0] == pytest.approx(np.degrees(30e-3 / 56.2777) * 3600, rel=1e-5)
    assert found.separation_arcsec[0] == pytest.approx(12.579, abs=1e-3)
    near = catalog.take(classes.rows[classes.reach_arcsec > 17_000], ["lum_dist_mpc"])["lum_dist_mpc"].to_numpy()
    assert near.max() < 0.4  # five degrees are the most that a galaxy reaches
