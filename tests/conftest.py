"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no verdict on how busy the machine is.
settings.register_profile(
    "alertmill",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("alertmill")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real alerts, schemas, sky maps and catalogs; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("ALERTMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "PROVENANCE.tsv").is_file():
        pytest.skip(f"no real sample data at {folder} (set ALERTMILL_TEST_DATA to a folder that has them)")
    return folder
