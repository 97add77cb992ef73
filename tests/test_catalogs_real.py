"""Catalogs built from their real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import catalogs

REAL = {
    "mangrove": (["mangrove.parquet"], 295_341, 0),
    "vsx": (["vsx_compact.parquet"], 1_933_544, 0),
    "gcvs": (["gcvs.parquet"], 59_099, 0),
    "spicy": (["spicy.parquet"], 117_446, 0),
    "x3hsp": (["3hsp.csv"], 2_013, 0),
    "x4lac": (["table-4LAC-DR3-h.fits", "table-4LAC-DR3-l.fits"], 3_814, 0),
    "openngc": (["openngc.csv.gz"], 13_962, 7),
}


@pytest.mark.parametrize("name", REAL)
def test_real_catalog(name: str, shared_data: Path, tmp_path: Path) -> None:
    files, rows, without_position = REAL[name]
    paths = [shared_data / "catalogs" / file for file in files]
    catalog = catalogs.build(catalogs.get_declaration(name), paths, tmp_path / name)
    assert (catalog.rows, catalog.rows_without_position) == (rows, without_position)
    catalog.verify()
    table = catalog.take(np.arange(0, rows, max(1, rows // 1000)), [item.name for item in catalog.declaration.columns])
    for column in table.columns:
        assert column.null_count < len(column)
        if pa.types.is_string(column.type):
            assert all(text is None or (text and text == text.strip()) for text in column.to_pylist())
