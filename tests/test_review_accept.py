"""Acceptance when normalisation itself fails on some packets of a batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa
import pytest
import ztf_packets as ztf

from pipeline.dumps import Tally, list_sources, segments
from pipeline.errors import SchemaError
from pipeline.nights.arrivals import read_batches
from pipeline.stages.accept import accept
from pipeline.surveys import get as get_survey

BASE = 697_251_920_015_000_000


@pytest.mark.parametrize("kind", [ValueError, SchemaError])
def test_packets_that_cannot_be_normalised_spoil_no_neighbour(tmp_path: Any, kind: type[Exception]) -> None:
    broken = {BASE + 1, BASE + 3, BASE + 4}
    survey = get_survey("ztf")

    def normalise(raw: pa.Table) -> pa.Table:
        if broken & set(survey.alert_id(raw).to_pylist()):
            raise kind("a strange packet")
        return survey.normalise(raw)

    strange = dataclasses.replace(survey, normalise=normalise)
    (source,) = list_sources([str(ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(6)]))])
    (segment,) = segments(source)
    (batch,) = read_batches(segment, survey, None, Tally())
    accepted = accept(batch.arrivals, strange, source="a.tar")
    good = [BASE, BASE + 2, BASE + 5]
    for name in ("raw", "cutouts", "alerts", "provenance"):
        assert getattr(accepted, name).column("alert_id").to_pylist() == good
    assert accepted.rejects.column("alert_id").to_pylist() == sorted(broken)
    assert set(accepted.rejects.column("reason").to_pylist()) == {"not_normalisable"}
