"""Duplicates: of several packets with one alert id, decide which stays. Arrival order decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IDENTICAL = "identical copy"
RE_ENCODED = "re-encoded copy of a native packet"


@dataclass(frozen=True)
class Claim:
    """One packet of an alert id that several packets have.

    Parameters
    ----------
    alert_id : int
        The alert.
    part : str
        Name of the part where it stands.
    row : int
        Row within it.
    is_native : bool
        As the survey shipped it; a re-encoded copy gives way to it.
    version_rank : tuple of int
        Rank of the packet's schema version.
    processed_mjd : float or None
        The survey's processing time.
    body_sha256 : bytes
        Digest of the body.
    source : str
        Source name: decides between identical copies only.
    """

    alert_id: int
    part: str
    row: int
    is_native: bool
    version_rank: tuple[int, ...]
    processed_mjd: float | None
    body_sha256: bytes
    source: str


@dataclass(frozen=True)
class Loser:
    """A packet that gives way: ``is_conflict`` if its body differs from the winner's and was not seen before."""

    claim: Claim
    winner: Claim
    is_conflict: bool
    reason: str


def repeated_ids(ids: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sorted alert ids that occur more than once in all arrays together, int64 (k,)."""
    if not ids:
        return np.empty(0, np.int64)
    values, counts = np.unique(np.concatenate(ids), return_counts=True)
    return values[counts > 1]


def decide(claims: Sequence[Claim]) -> list[Loser]:
    """Return the packets that give way.

    Of the packets of one alert id the first by this order stays: native before re-encoded, highest schema version,
    latest processing time, smallest body digest; identical copies: the first source by name, the first row in it.
    """
    losers: list[Loser] = []
    by_alert: dict[int, list[Claim]] = {}
    for claim in claims:
        by_alert.setdefault(claim.alert_id, []).append(claim)
    for alert_id in sorted(by_alert):
        rivals = sorted(by_alert[alert_id], key=_precedence)
        winner = rivals[0]
        seen = {winner.body_sha256}
        for claim in rivals[1:]:
            if claim.body_sha256 in seen:
                losers.append(Loser(claim, winner, False, IDENTICAL))
            elif winner.is_native and not claim.is_native:
                losers.append(Loser(claim, winner, False, RE_ENCODED))
            else:
                detail = f"kept body {winner.body_sha256.hex()}, this body {claim.body_sha256.hex()}"
                losers.append(Loser(claim, winner, True, detail))
            seen.add(claim.body_sha256)
    return losers


def _precedence(claim: Claim) -> tuple[object, ...]:
    processed = -np.inf if claim.processed_mjd is None else claim.processed_mjd
    version = tuple(-number for number in claim.version_rank)
    return (not claim.is_native, version, -processed, claim.body_sha256, claim.source, claim.part, claim.row)
