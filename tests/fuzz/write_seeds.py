"""Write ``seeds/bodies.json``: small mutants, one for each family, rule, and kind of thing that was changed.

Run ``python -m tests.fuzz.write_seeds`` after a change of the rules; a mutant that showed a defect is added by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.bases import writer
from tests.fuzz.mutate import mutant

SEEDS = Path(__file__).parent / "seeds/bodies.json"
SURVEYS = ("ztf", "lsst", "elasticc", "every")
CASES = 20_000
MOST = 450
"""Bytes of the largest body kept."""


def chosen(family: str) -> dict[str, dict[str, str | None]]:
    """Return the smallest mutant for each rule, and for the made-up family also for each kind of change."""
    best: dict[str, dict[str, str | None]] = {}
    for case in range(CASES):
        made = mutant(family, 0, case)
        body = made.body
        if len(made.kinds) != 1 or len(body) > MOST:
            continue
        verdict = writer(family, made.base.version).reference.judge(body)
        name = (
            f"{family} {verdict.rule} {made.kinds[0] if family == 'every' else ''}{' twice' if verdict.twice else ''}"
        )
        if name not in best or len(body) < len(str(best[name]["body"])) // 2:
            best[name] = {
                "family": family,
                "version": made.base.version,
                "rule": verdict.rule,
                "field": verdict.field,
                "body": body.hex(),
            }
    return best


if __name__ == "__main__":
    rows = [row for family in SURVEYS for _, row in sorted(chosen(family).items())]
    SEEDS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(rows)} bodies, {SEEDS.stat().st_size} bytes")
