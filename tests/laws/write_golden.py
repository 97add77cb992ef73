"""Write the golden outputs that are missing; never one that is there.

Run as ``python tests/laws/write_golden.py`` after a module's version was raised, and remove the files of versions that
are no longer registered.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from strategies import GOLDEN, frozen_alerts, synthetic_alerts
from test_module_laws import golden_file, run, with_inputs

from pipeline.science import NIGHT, SCIENCE, apply


def synthetic_night() -> pa.Table:
    """Return two exposures of 80 alerts each, the first with a streak of 7 and the second with one of 9."""
    draw = np.random.Generator(np.random.Philox(key=2202_05719))
    n = 160
    ra, dec = draw.uniform(148.0, 152.0, n), draw.uniform(28.0, 32.0, n)
    for start, count, slope in ((0, 7, 0.3), (80, 9, -1.2)):
        steps = np.sort(draw.uniform(0.0, 0.15, count))  # short: a straight line in (ra, dec) is within an arcsecond
        ra[start : start + count], dec[start : start + count] = 150.0 + steps, 30.0 + slope * steps
    columns = {
        "alert_id": pa.array(2**53 + 1 + draw.permutation(n)),
        "ra": pa.array(ra),
        "dec": pa.array(dec),
        "mjd": pa.array(np.repeat([60000.25, 60000.26], 80)),
        "first_mjd": pa.array(np.repeat([60000.25, 60000.26], 80)),
        "n_detections": pa.array(np.ones(n, dtype=np.int32)),
        "is_positive": pa.array(np.ones(n, dtype=np.bool_)),
        "is_solar_system": pa.array(np.zeros(n, dtype=np.bool_)),
        "is_injected": pa.nulls(n, pa.bool_()),
        "reference_mag": pa.nulls(n, pa.float32()),
    }
    table = synthetic_alerts(n, seed=8)
    for name, data in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), data)
    return table.select([name for name in table.column_names if name not in ("light_curve", "upper_limits")])


def main() -> None:
    night = GOLDEN / "night.parquet"
    if not night.is_file():
        pq.write_table(synthetic_night(), night, compression="zstd")
    for name in SCIENCE:
        if not golden_file(name).is_file():
            pq.write_table(run(name, with_inputs(name, frozen_alerts())), golden_file(name), compression="zstd")
    for name, module in NIGHT.items():
        if not golden_file(name).is_file():
            pq.write_table(apply(module, pq.read_table(night)), golden_file(name), compression="zstd")


if __name__ == "__main__":
    main()
