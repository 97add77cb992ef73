"""One archive for all tests of other tools."""

from __future__ import annotations

import pytest
from two_nights import Written, write


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("interop"))
