"""Draw the picture of the README from the sample night: ``python docs/sample_picture.py`` after ``make run``.

On the left the sky of the night as its report draws it; on the right the light curve and the three stamps of a
supernova candidate, the brightest among those seen to rise and fall; below, the ledger.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib import image as images
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sample_summary import look, read_truth

import pipeline
from pipeline.report.curves import Points, points_of
from pipeline.report.palette import FAINT, INK, RULE, in_order, style
from pipeline.report.stamps import stamp_of

_DPI = 106
_SEEN_DAYS, _FALLEN = 7.0, 0.7
"""A rise and a fall in r of so many days, down to this share of the peak, are worth a picture."""


def main() -> None:
    """Draw and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=Path("sample/data"))
    parser.add_argument("night", type=int, nargs="?", default=20240212)
    parser.add_argument("truth", type=Path, nargs="?", default=Path("sample/20240212/truth.parquet"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/sample_night.png"))
    given = parser.parse_args()
    archive = pipeline.open(given.root)
    truth = read_truth(given.truth)
    alert = _chosen(archive, given.night)
    alert["class"] = truth.set_index("alert_id")["class"][alert["alert_id"]]

    figure = Figure(figsize=(12.0, 6.3), dpi=_DPI, facecolor="white")
    _sky(figure.add_axes((0.005, 0.19, 0.49, 0.72)), given.root, archive, given.night)
    _curve(figure.add_axes((0.555, 0.265, 0.285, 0.60)), archive, alert)
    stamps = _stamps(archive, alert["alert_id"])
    for row, (name, pixels) in enumerate(stamps):
        _stamp(figure.add_axes((0.875, 0.685 - row * 0.225, 0.1, 0.18)), name, pixels)
    _headings(figure, alert, given.night)
    _ledger(figure, archive, given.night, look(archive, given.night, truth))

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    given.out.write_bytes(buffer.getvalue())


def _chosen(archive: pipeline.archive.Archive, night: int) -> dict[str, Any]:
    """Return the brightest supernova candidate, one that was seen to rise and fall if there is any."""
    shown = ["alert_id", "object_key", "mjd", "diff_mag", "clf_supernova_score"]
    shape = [f"feat_r_{name}" for name in ("since_peak_days", "span_days", "last_flux_ratio")]
    passed = archive.science(night, columns=[*shown, *shape], where=pc.field("filter_supernova_candidate")).to_arrow()
    fall, span, last = (passed[name].to_numpy() for name in shape)
    is_seen = (fall >= _SEEN_DAYS) & (span - fall >= _SEEN_DAYS) & (last <= _FALLEN)
    order = np.lexsort((passed["alert_id"].to_numpy(), passed["diff_mag"].to_numpy(), ~is_seen))
    return passed.select(shown).take(order[:1]).to_pylist()[0]


def _headings(figure: Figure, alert: dict[str, Any], night: int) -> None:
    day = f"{night // 10000}-{night // 100 % 100:02d}-{night % 100:02d}"
    figure.text(0.03, 0.935, f"One simulated ZTF night, {day}", fontsize=15, color=INK, weight="bold")
    told = "numbered: the ten alerts that its report shows first"
    figure.text(0.03, 0.895, told, fontsize=11.5, color=FAINT)
    figure.text(0.505, 0.935, f"A supernova candidate, {alert['object_key']}", fontsize=15, color=INK, weight="bold")
    told = f"classifier score {alert['clf_supernova_score']:.2f}; in truth: {alert['class']}"
    figure.text(0.505, 0.895, told, fontsize=11.5, color=FAINT)


def _sky(axes: Axes, root: Path, archive: pipeline.archive.Archive, night: int) -> None:
    """Show the sky of the night's report."""
    page = root / "reports" / archive.surveys[0] / str(night)
    drawn = images.imread(page / "sky.png")
    rows, columns = np.nonzero((drawn[..., :3] < 1).any(axis=2))
    axes.imshow(drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], interpolation="lanczos")
    axes.set_axis_off()


def _curve(axes: Axes, archive: pipeline.archive.Archive, alert: dict[str, Any]) -> None:
    where = pc.field("alert_id") == alert["alert_id"]
    row = archive.science(columns=["alert_id"], where=where).light_curves(upper_limits=True).combine_chunks()
    points = points_of(row["light_curve"].chunk(0), row["upper_limits"].chunk(0), alert["mjd"])
    for band in in_order(set(points.band)):
        _points(axes, points, band)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.set_xlabel("days from this alert", fontsize=11.5, color=INK)
    axes.set_ylabel("difference flux (µJy)", fontsize=11.5, color=INK)
    axes.tick_params(labelsize=10.5, colors=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=11, labelcolor=INK, loc="best")


def _points(axes: Axes, points: Points, band: str) -> None:
    """Draw detections filled and forced photometry hollow; a limit is no flux and is left out."""
    drawn = style(band)
    for kind, filled in (("forced", False), ("detection", True)):
        rows = [row for row, of in enumerate(zip(points.band, points.kind, strict=True)) if of == (band, kind)]
        if not rows:
            continue
        axes.errorbar(
            points.days[rows],
            points.flux_njy[rows] / 1e3,
            points.flux_err_njy[rows] / 1e3,
            fmt=drawn.plot_mark,
            color=drawn.colour,
            markerfacecolor=drawn.colour if filled else "white",
            markersize=6 if filled else 5,
            elinewidth=1,
            label=f"{band}: detections" if filled else f"{band}: forced photometry",
        )


def _stamps(archive: pipeline.archive.Archive, alert_id: int) -> list[tuple[str, np.ndarray]]:
    row = archive.cutouts(alert_id).to_pylist()[0]
    names = ("Science", "Template", "Difference")
    return [(name.lower(), images.imread(io.BytesIO(stamp_of(row[f"cutout{name}"]).png))) for name in names]


def _stamp(axes: Axes, name: str, pixels: np.ndarray) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(name, fontsize=10.5, color=FAINT, pad=3)


def _ledger(figure: Figure, archive: pipeline.archive.Archive, night: int, found: list[Any]) -> None:
    """Write the conservation ledger and what was found."""
    counts = archive.ledger(night)["counts"]
    figure.add_artist(_rule(0.165))
    shown = [(name, counts[name]) for name in counts]
    for column, (name, count) in enumerate(shown):
        x = 0.03 + column * 0.0707 + (0.012 if column > 1 else 0)
        sign = {0: "", 1: "= "}.get(column, "+ ")
        figure.text(x, 0.095, f"{sign}{count:,}", fontsize=13.5, color=INK, weight="bold")
        figure.text(x, 0.052, name.replace("_", " "), fontsize=10.5, color=FAINT)
    for x, row in zip((0.565, 0.715, 0.875), found[:2] + found[3:], strict=True):
        figure.text(x, 0.095, f"{row.true:,} of {row.found:,} true", fontsize=13, color=INK, weight="bold")
        figure.text(x, 0.052, row.what, fontsize=10, color=FAINT)


def _rule(y: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([0.03, 0.975], [y, y], color=RULE, linewidth=1)


if __name__ == "__main__":
    main()
