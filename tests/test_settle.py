"""Which of several packets of one alert stays, and what a ledger must add up to."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConservationError
from pipeline.stages.settle import IDENTICAL, RE_ENCODED, Claim, decide, repeated_ids
from pipeline.store.ledger import check_balance, check_ledger, zero_counts

FIRST = Claim(7, "part-a", 0, True, (4, 2), 100.0, b"m", "a.tar")

CLAIMS = st.builds(
    Claim,
    alert_id=st.integers(1, 3),
    part=st.sampled_from(["part-a", "part-b"]),
    row=st.integers(0, 99),
    is_native=st.booleans(),
    version_rank=st.sampled_from([(3, 3), (4, 1), (4, 2)]),
    processed_mjd=st.none() | st.sampled_from([99.0, 100.0]),
    body_sha256=st.sampled_from([b"a", b"b", b"c"]),
    source=st.sampled_from(["a.tar", "b.tar"]),
)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            {"is_native": True},
            {"is_native": False, "version_rank": (9, 9), "processed_mjd": 999.0, "body_sha256": b"a"},
        ),
        ({"version_rank": (4, 10)}, {"version_rank": (4, 9), "processed_mjd": 999.0, "body_sha256": b"a"}),
        ({"processed_mjd": 101.0}, {"processed_mjd": 100.0, "body_sha256": b"a"}),
        ({"processed_mjd": 1.0}, {"processed_mjd": None, "body_sha256": b"a"}),
        ({"body_sha256": b"a"}, {"body_sha256": b"b"}),
        ({"source": "a.tar", "part": "part-z"}, {"source": "b.tar", "part": "part-a"}),
        ({"row": 3}, {"row": 4}),
    ],
)
def test_what_decides_comes_in_this_order(better: dict[str, Any], worse: dict[str, Any]) -> None:
    stays, gives_way = replace(FIRST, **better), replace(FIRST, **worse)
    for claims in ([stays, gives_way], [gives_way, stays]):
        (loser,) = decide(claims).losers
        assert (loser.winner, loser.claim) == (stays, gives_way)


def test_a_copy_is_no_conflict_and_a_conflict_names_both_bodies() -> None:
    copy_, other, encoded = replace(FIRST, row=1), replace(FIRST, body_sha256=b"z"), replace(FIRST, is_native=False)
    again = replace(other, row=9)
    losers = {
        loser.claim: loser for loser in decide([FIRST, copy_, other, again, replace(encoded, body_sha256=b"e")]).losers
    }
    assert (losers[copy_].is_conflict, losers[copy_].reason) == (False, IDENTICAL)
    assert losers[other].is_conflict
    assert b"m".hex() in losers[other].reason
    assert b"z".hex() in losers[other].reason
    assert (losers[again].is_conflict, losers[again].reason) == (False, IDENTICAL)
    reasons = [loser.reason for loser in losers.values() if not loser.claim.is_native]
    assert reasons == [RE_ENCODED]


@given(st.lists(CLAIMS, max_size=8, unique_by=lambda claim: (claim.part, claim.row)), st.randoms())
def test_arrival_order_decides_nothing(claims: list[Claim], rng: Any) -> None:
    shuffled = list(claims)
    rng.shuffle(shuffled)
    key = lambda loser: (loser.claim.alert_id, loser.claim.part, loser.claim.row)  # noqa: E731
    first, second = (sorted(decide(order).losers, key=key) for order in (claims, shuffled))
    assert [(loser.claim, loser.winner) for loser in first] == [(loser.claim, loser.winner) for loser in second]
    assert len(first) == len(claims) - len({claim.alert_id for claim in claims})
    bodies = {(loser.claim.alert_id, loser.claim.body_sha256) for loser in first if loser.is_conflict}
    assert len(bodies) == sum(loser.is_conflict for loser in first)
    assert not any(loser.is_conflict and loser.claim.body_sha256 == loser.winner.body_sha256 for loser in first)


def test_repeated_ids_are_found_within_and_across_arrays() -> None:
    arrays = [np.array([5, 1, 1]), np.array([2, 5]), np.array([], dtype=np.int64)]
    assert repeated_ids(arrays).tolist() == [1, 5]
    assert repeated_ids([]).tolist() == []


@pytest.mark.parametrize("name", ["written", "duplicates", "conflicting", "rejected", "cut", "other_night"])
def test_every_packet_stands_in_exactly_one_count(name: str) -> None:
    counts = {**zero_counts(), "packets_in": 5, name: 5}
    check_balance(counts, what="ztf 20181129")
    for wrong in ({name: 4}, {"packets_in": 6}, {name: 6, "cut" if name != "cut" else "written": -1}):
        with pytest.raises(ConservationError, match="ztf 20181129: the ledger does not balance"):
            check_balance({**counts, **wrong}, what="ztf 20181129")


def _ledger() -> dict[str, Any]:
    counts = {**zero_counts(), "packets_in": 3, "written": 3}
    file = {"path": "ztf/alerts/x", "rows": 3, "bytes": 1, "sha256": ""}
    return {
        "survey": "ztf",
        "night": "20181129",
        "counts": counts,
        "reasons": {},
        "sources": [{"name": "a.tar", "number": 1, "counts": dict(counts), "reasons": {}, "nights": [20181129]}],
        "parts": [{"name": "part-1", "source": "a.tar", "rows": 3, "files": {"alerts": dict(file)}}],
        "night_files": {"rejects": []},
    }


def test_a_ledger_must_agree_with_its_sources_and_its_parts() -> None:
    check_ledger(_ledger())
    for change in (
        lambda ledger: ledger["sources"][0]["counts"].update(packets_in=4, written=4),
        lambda ledger: ledger["parts"][0].update(rows=2),
        lambda ledger: ledger["parts"][0]["files"]["alerts"].update(rows=2),
        lambda ledger: ledger["counts"].update(packets_in=4, rejected=1),
        lambda ledger: ledger["parts"].clear(),
    ):
        broken = copy.deepcopy(_ledger())
        change(broken)
        with pytest.raises(ConservationError):
            check_ledger(broken)
