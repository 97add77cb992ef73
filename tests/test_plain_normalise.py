"""Normalisation with kernels gives the bits that plain numpy gave: on real packets, simulated nights and odd tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import plain_normalise.accept
import plain_normalise.elasticc
import plain_normalise.lsst
import plain_normalise.ztf
import pyarrow as pa
import pytest
import raw_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_samples import files, raw_table, tarred, transfer

from pipeline import lightcurve, night, points
from pipeline.dumps import Tally, list_sources, segments
from pipeline.filters import conditions
from pipeline.nights.arrivals import read_batches
from pipeline.schema import content_hashes
from pipeline.simulation import simulate
from pipeline.stages.accept import Accepted, Arrivals, accept
from pipeline.surveys import get, lsst_points, records, ztf, ztf_points

PLAIN: dict[str, ModuleType] = {
    "ztf": plain_normalise.ztf,
    "lsst": plain_normalise.lsst,
    "elasticc_v1": plain_normalise.elasticc,
}
KERNELS = (lightcurve, night, points, records, ztf, ztf_points, lsst_points)


def assert_identical(ours: pa.Table, plain: pa.Table) -> None:
    ours.validate(full=True)
    assert ours.schema.equals(plain.schema, check_metadata=True)
    left, right = content_hashes(ours), content_hashes(plain)
    assert [name for name in left if left[name] != right[name]] == []


def outcome(call: object, *arguments: object) -> object:
    """Return what a call returns, or the kind of error that it raises."""
    try:
        return call(*arguments)
    except (pa.ArrowException, ValueError) as error:
        return type(error)


def check(name: str, raw: pa.Table) -> None:
    survey, plain = get(name), PLAIN[name]
    faults = survey.faults(raw)
    source_faults = plain.faults if name == "ztf" else plain_normalise.lsst.source_faults
    assert faults.to_pylist() == source_faults(raw).to_pylist()
    alert_id = plain.alert_id if name == "ztf" else plain_normalise.lsst.alert_id
    assert survey.alert_id(raw).equals(alert_id(raw))
    assert survey.forced_losses(raw) == plain.forced_losses(raw)
    assert survey.processed_mjd(raw).equals(plain.processed_mjd(raw))
    sound = raw.filter(faults.is_null()) if faults.null_count < raw.num_rows else raw
    ours, expected = outcome(survey.normalise, sound), outcome(plain.normalise, sound)
    if not isinstance(expected, pa.Table):
        assert ours is expected
        return
    assert isinstance(ours, pa.Table)
    assert_identical(ours, expected)
    assert survey.night_of(ours).tolist() == plain.night_of(expected).tolist()
    disagreement = survey.night_disagreement(sound, ours)
    assert disagreement.tolist() == plain.night_disagreement(sound, expected).tolist()


def shapes(raw: pa.Table) -> Iterator[pa.Table]:
    third = raw.num_rows // 3
    yield raw
    yield raw.slice(third, third)
    yield pa.concat_tables([raw.slice(1, third), raw.slice(third, 0), raw.slice(third, third)])


@pytest.mark.parametrize("kind", ["night", "versions", "v3.5"])
def test_real_packets_of_ztf(shared_data: Path, kind: str) -> None:
    folder = shared_data / "alerts/ztf"
    if kind == "versions":
        packets = [*(folder / "versions").rglob("*.avro"), *(folder / "object_ZTF21abiuvdk").glob("*.avro")]
        found = files("ztf", sorted(packets))
    elif kind == "night":
        found = tarred(folder / "ztf_public_20181129.tar.gz")
    else:
        found = tarred(next((folder / "tar_no_cutouts_v3.5_20210720").glob("*.tar.gz")))
    for raw in shapes(raw_table("ztf", found)):
        check("ztf", raw)


def test_real_packets_of_rubin(shared_data: Path) -> None:
    folder = shared_data / "alerts/lsst"
    samples = sorted((folder / "alert_packet_samples").rglob("fakeAlert.avro"))
    wire = [path for kind in ("wire_v7.1_v7.3", "wire_v7.4", "wire_id900") for path in (folder / kind).rglob("*.avro")]
    for raw in shapes(raw_table("lsst", files("lsst", [*samples, *sorted(wire)]))):
        check("lsst", raw)
    check("lsst", transfer(folder / "fink_transfer_2026-03-10")[0])


def test_real_packets_of_elasticc(shared_data: Path) -> None:
    folder = shared_data / "alerts/elasticc"
    found = tarred(folder / "elasticc_5607_alerts.tar.gz")[:1500]
    found += files("elasticc_v1", sorted((folder / "samples").glob("*.avro")))
    for raw in shapes(raw_table("elasticc_v1", found)):
        check("elasticc_v1", raw)


def simulated(survey: str, alerts: int, folder: Path) -> list[Arrivals]:
    (source,) = list_sources([str(simulate(20240101, survey, alerts, 5, folder).dump)])
    batches = [b for segment in segments(source) for b in read_batches(segment, get(survey), None, Tally())]
    return [batch.arrivals for batch in batches]


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_simulated_nights(survey: str, tmp_path: Path) -> None:
    arrivals = simulated(survey, 600, tmp_path)
    check(survey, pa.concat_tables([batch.raw for batch in arrivals]))
    for batch in arrivals:
        check_accepted(batch, survey)


ODD = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(0, 9),
    "longest": st.sampled_from([0, 3, 12]),
    "is_sound": st.booleans(),
    "is_wide": st.booleans(),
}


@pytest.mark.parametrize("survey", PLAIN)
@settings(max_examples=60)
@given(**ODD)
def test_odd_tables(survey: str, **how: object) -> None:
    with np.errstate(all="ignore"):
        for table in shapes(raw_tables.raw_table(survey, **how)):
            check(survey, table)


@pytest.mark.parametrize("survey", PLAIN)
def test_odd_tables_with_the_kernels_as_plain_python(survey: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in KERNELS:
        for name, value in vars(module).copy().items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    with np.errstate(all="ignore"):
        for seed in range(12):
            how = {"n": 5 + seed, "longest": 3 * seed, "is_sound": seed % 4 > 0, "is_wide": seed % 3 == 0}
            check(survey, raw_tables.raw_table(survey, seed, **how))


# --------------------------------------------------------------------------------------------------- acceptance
def check_accepted(arrivals: Arrivals, survey: str, **options: object) -> Accepted:
    ours = accept(arrivals, get(survey), source="a.tar", **options)
    plain = plain_normalise.accept.accept(arrivals, get(survey), source="a.tar", **options)
    for name in ("raw", "cutouts", "alerts", "provenance", "rejects"):
        assert_identical(getattr(ours, name), getattr(plain, name))
    for name in ("night", "position", "reject_position"):
        assert np.array_equal(getattr(ours, name), getattr(plain, name))
    return ours


def arrivals_of(raw: pa.Table) -> Arrivals:
    n = raw.num_rows
    provenance = pa.table(
        {
            "member": pa.array([f"{k}.avro" for k in range(n)], pa.string()),
            "offset": pa.array(np.arange(n) * 7),
            "length": pa.array(np.full(n, 7)),
            "body_sha256": pa.array([bytes([k % 256]) * 32 for k in range(n)], pa.binary(32)),
            "writer_schema_id": pa.array(["4.02"] * n, pa.string()),
        }
    )
    cutouts = pa.table({"cutoutScience": pa.array([b"stamp"] * n, pa.binary())})
    return Arrivals(raw, cutouts, provenance, np.arange(n) + 100, [b"body%d" % k for k in range(n)])


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
@settings(max_examples=40)
@given(**ODD)
def test_acceptance_of_odd_tables(survey: str, **how: object) -> None:
    raw = raw_tables.raw_table(survey, **how)
    night = {"ztf": 20181129, "lsst": 20260309}[survey]
    text = {"ztf": "magnr > 0", "lsst": "psfFlux > 0"}[survey]
    with np.errstate(all="ignore"):
        check_accepted(arrivals_of(raw), survey, night=night)
        if not how["is_wide"]:
            check_accepted(arrivals_of(raw), survey, cut=conditions.parse(text, get(survey).superset))


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_rows_kept_whole_are_not_copied(survey: str, tmp_path: Path) -> None:
    (arrivals,) = simulated(survey, 80, tmp_path)
    ours = accept(arrivals, get(survey), source="a.tar")
    for given_table, table in ((arrivals.raw, ours.raw), (arrivals.cutouts, ours.cutouts)):
        for name in given_table.column_names:
            left, right = given_table.column(name).chunks, table.column(name).chunks
            addresses = [[b.address for chunk in chunks for b in chunk.buffers() if b] for chunks in (left, right)]
            assert addresses[0] == addresses[1]
    assert ours.rejects.num_rows == len(ours.reject_position) == 0
