"""Light curves as inline SVG, one drawing per quantity: magnitude, flux, luminosity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import lightcurve
from pipeline.luminosity import Passband, absolute_mag, extinction_mag, nu_lnu_erg_s, wavelengths_nm
from pipeline.photometry import mag_error_from_flux, mag_from_flux
from pipeline.report.axes import NU, Scale, num, power_of_ten, round_ticks, span, text, tick_text
from pipeline.report.palette import in_order, style

WIDTH, HEIGHT = 640.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 12.0, 14.0, 46.0
_ARROW = 13.0
_CROWDED = 150
"""From so many points on, marks are drawn smaller."""
FORCED_SIGMA = 3.0
LIMIT_SIGMA = 5.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """A light curve ready to draw; every array has shape (n,), times are days from the alert.

    ``kind`` is ``detection``, ``forced`` or ``limit``; for a limit, ``flux_njy`` is the 5 sigma limit.
    """

    days: Floats
    flux_njy: Floats
    flux_err_njy: Floats
    band: list[str]
    kind: list[str]


@dataclass(frozen=True)
class Drawing:
    """One light curve in one quantity; without ``svg``, why not.

    ``key`` is ``mag``, ``flux``, ``luminosity`` or ``absolute``.
    """

    key: str
    name: str
    svg: str
    missing: str | None = None


@dataclass(frozen=True)
class Source:
    """Where the light curve was made: luminosity distance, redshift (NaN: unknown), E(B-V) (NaN: unknown), bands."""

    distance_mpc: float
    passbands: Mapping[str, Passband]
    redshift: float = math.nan
    ebv_mag: float = math.nan

    def extinction(self, bands: list[str]) -> Floats:
        """Return A of each band, shape (n,), NaN where it is not known."""
        return extinction_mag(self.passbands, bands, self.ebv_mag)

    @property
    def caveat(self) -> str:
        """What is said of the extinction by the Milky Way."""
        return "uncorrected for extinction" if math.isnan(self.ebv_mag) else "corrected for extinction"


def points_of(light_curve: pa.Array, upper_limits: pa.Array, mjd: float) -> Points:
    """Return one alert's light curve, each exposure once.

    Parameters
    ----------
    light_curve, upper_limits : pyarrow.StructArray
        Of length 1, as in ``alerts``.
    mjd : float
        Time of the alert.
    """
    measured = _columns(lightcurve.primary(light_curve))
    limits = _columns(upper_limits)
    taken = set(zip(measured["exposure"], measured["band"], strict=True)) - {(None, band) for band in measured["band"]}
    rows = [
        (time, flux, error, str(band), "forced" if is_forced else "detection")
        for time, flux, error, band, is_forced in zip(
            *(measured[name] for name in ("mjd", "flux_njy", "flux_err_njy", "band", "is_forced")), strict=True
        )
    ]
    rows += [
        (time, flux, None, str(band), "limit")
        for time, flux, band, exposure in zip(
            *(limits[name] for name in ("mjd", "flux_limit_njy", "band", "exposure")), strict=True
        )
        if (exposure, band) not in taken  # forced photometry of the same exposure says more than its limit
    ]
    numbers = np.array([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3)
    keep = np.flatnonzero(np.isfinite(numbers[:, :2]).all(axis=1)).tolist()
    days, flux_njy, error_njy = numbers[keep].T
    return Points(days - mjd, flux_njy, error_njy, [rows[row][3] for row in keep], [rows[row][4] for row in keep])


def _columns(nested: pa.StructArray) -> dict[str, list[Any]]:
    """Return the lists of one row of struct-of-lists, by name."""
    return {kind.name: values.flatten().to_pylist() for kind, values in zip(nested.type, nested.flatten(), strict=True)}


def drawings(points: Points, source: Source | None, *, label: str, absolute: bool = False) -> list[Drawing]:
    """Return the drawings of a light curve.

    Parameters
    ----------
    points : Points
        The light curve.
    source : Source, optional
        Where it was made, as far as that is known.
    label : str
        Names the alert for readers who cannot see the drawing.
    absolute : bool
        Draw absolute magnitudes, too.
    """
    names = [key for key in _NAMES if absolute or key != "absolute"]
    if len(points.days) == 0:
        return [Drawing(key, _NAMES[key], "", "the light curve is empty") for key in names]
    if source is not None and not source.distance_mpc > 0:
        source = None
    drawn = [_magnitudes(points, label), _fluxes(points, label), _luminosities(points, source, label)]
    return [*drawn, _absolute(points, source, label)] if absolute else drawn


_NAMES = {"mag": "magnitude", "flux": "flux", "luminosity": "luminosity", "absolute": "absolute magnitude"}
_NO_DISTANCE = "needs the distance of a matched galaxy"


@dataclass(frozen=True)
class _Mark:
    x: float
    y: float
    low: float
    high: float
    kind: str
    band: str
    is_negative: bool


def _magnitudes(points: Points, label: str) -> Drawing:
    """Draw AB magnitudes of |difference flux|; forced points below 3 sigma become 5 sigma limits."""
    marks = _magnitude_marks(points)
    if not marks:
        return Drawing("mag", _NAMES["mag"], "", "no point is significant")
    return Drawing("mag", _NAMES["mag"], _svg(marks, "difference magnitude (AB mag)", label, faint_end="low"))


def _absolute(points: Points, source: Source | None, label: str) -> Drawing:
    """Draw M = m - A - DM + 2.5 log10(1+z) of the same points; a negative difference has none."""
    if source is None:
        return Drawing("absolute", _NAMES["absolute"], "", _NO_DISTANCE)
    shift = absolute_mag(0.0, source.distance_mpc, source.redshift, source.extinction(points.band))
    marks = [mark for mark in _magnitude_marks(points, shift) if mark.kind == "limit" or not mark.is_negative]
    if not marks:
        return Drawing("absolute", _NAMES["absolute"], "", "no point is significant and positive")
    svg = _svg(marks, "absolute magnitude (AB mag)", label, faint_end="low", note=source.caveat)
    return Drawing("absolute", _NAMES["absolute"], svg)


def _magnitude_marks(points: Points, shift: Floats | None = None) -> list[_Mark]:
    marks = []
    moved = np.zeros(len(points.days)) if shift is None else shift
    mags = mag_from_flux(np.abs(points.flux_njy))
    errors = mag_error_from_flux(np.abs(points.flux_njy), points.flux_err_njy)
    for row, kind in enumerate(points.kind):
        flux, error = points.flux_njy[row], points.flux_err_njy[row]
        mag, half = float(mags[row]), float(errors[row]) if kind != "limit" else 0.0
        if kind == "forced" and not abs(flux) >= FORCED_SIGMA * error:
            mag, half, kind = float(mag_from_flux(LIMIT_SIGMA * error)), 0.0, "limit"
        mag += float(moved[row])
        if math.isfinite(mag):
            half = half if math.isfinite(half) else 0.0
            marks.append(_Mark(points.days[row], mag, mag - half, mag + half, kind, points.band[row], flux < 0))
    return marks


def _fluxes(points: Points, label: str) -> Drawing:
    factor, unit = _flux_unit(points)
    marks = list(_linear_marks(points, np.full(len(points.days), factor)))
    return Drawing("flux", _NAMES["flux"], _svg(marks, f"difference flux ({unit})", label, zero=True))


def _flux_unit(points: Points) -> tuple[float, str]:
    largest = float(np.max(np.abs(points.flux_njy)))
    for factor, unit in ((1e-6, "mJy"), (1e-3, "µJy")):
        if largest * factor >= 1:
            return factor, unit
    return 1.0, "nJy"


def _luminosities(points: Points, source: Source | None, label: str) -> Drawing:
    """Draw nu L_nu = 4 pi D_L^2 nu F_nu, signed, without K-correction."""
    if source is None:
        return Drawing("luminosity", _NAMES["luminosity"], "", _NO_DISTANCE)
    wavelengths = wavelengths_nm(source.passbands, points.band)
    factor = nu_lnu_erg_s(1.0, wavelengths, source.distance_mpc, source.extinction(points.band))
    if not np.isfinite(factor).any():
        return Drawing("luminosity", _NAMES["luminosity"], "", "the bands' wavelengths are not known")
    largest = float(np.nanmax(np.abs(points.flux_njy * factor)))
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    marks = list(_linear_marks(points, factor / 10.0**exponent))
    unit = f"{NU}L{NU} ({power_of_ten(exponent)} erg s⁻¹)"
    return Drawing("luminosity", _NAMES["luminosity"], _svg(marks, unit, label, zero=True, note=source.caveat))


def _linear_marks(points: Points, factor: Floats) -> Iterable[_Mark]:
    for row, kind in enumerate(points.kind):
        y = float(points.flux_njy[row] * factor[row])
        if math.isfinite(y):
            half = float(points.flux_err_njy[row] * factor[row])
            half = half if math.isfinite(half) else 0.0
            yield _Mark(points.days[row], y, y - half, y + half, kind, points.band[row], False)


# ------------------------------------------------------------------------------------------------- SVG
def _svg(
    marks: list[_Mark], y_name: str, label: str, *, faint_end: str = "", zero: bool = False, note: str = ""
) -> str:
    inverted = faint_end == "low"
    x_range = span([mark.x for mark in marks], least=1.0)
    heights = [value for mark in marks for value in (mark.low, mark.high, mark.y)] + ([0.0] if zero else [])
    typical = max(abs(value) for value in heights)
    y_range = span(heights, margin=0.1, least=0.2 if inverted else max(typical * 1e-3, 1e-12))
    x = Scale(*x_range, _LEFT, WIDTH - _RIGHT)
    bottom, top = HEIGHT - _BOTTOM, _TOP
    y = Scale(*y_range, top, bottom) if inverted else Scale(*y_range, bottom, top)
    inner = _frame(x, y, y_name, zero=zero)
    for band in in_order({mark.band for mark in marks}):
        inner += _band(
            [mark for mark in marks if mark.band == band], band, x, y, 0.62 if len(marks) > _CROWDED else 1.0
        )
    if note:
        inner.append(text(WIDTH - _RIGHT - 4, _TOP + 4, note, anchor="end", cls="tick"))
    named = f"{y_name}, {note}" if note else y_name
    told = f"Light curve of {label}: {named} against days from the alert. {_summary(marks)}"
    view = f"0 0 {num(WIDTH)} {num(HEIGHT)}"
    return f'<svg viewBox="{view}" role="img" aria-label="{escape(told)}">{"".join(inner)}</svg>'


def _summary(marks: list[_Mark]) -> str:
    counts = {kind: sum(mark.kind == kind for mark in marks) for kind in ("detection", "forced", "limit")}
    bands = ", ".join(in_order({mark.band for mark in marks}))
    return (
        f"{counts['detection']} detections, {counts['forced']} forced points and {counts['limit']} upper limits "
        f"in {bands}, from {min(mark.x for mark in marks):.1f} to {max(mark.x for mark in marks):.1f} days."
    )


def _frame(x: Scale, y: Scale, y_name: str, *, zero: bool) -> list[str]:
    bottom, left, right = HEIGHT - _BOTTOM, _LEFT, WIDTH - _RIGHT
    out = []
    y_ticks = round_ticks(y.low, y.high)
    for tick in y_ticks:
        at = num(y(tick))
        strong = ' class="zero"' if zero and tick == 0 else ' class="grid"'
        out.append(f'<path d="M{num(left)} {at}H{num(right)}"{strong}/>')
        out.append(text(left - 8, y(tick) + 4, tick_text(tick, y_ticks), anchor="end", cls="tick"))
    x_ticks = round_ticks(x.low, x.high, 6)
    for tick in x_ticks:
        out.append(f'<path d="M{num(x(tick))} {num(bottom)}v5" class="axis"/>')
        out.append(text(x(tick), bottom + 18, tick_text(tick, x_ticks), cls="tick"))
    out.append(f'<path d="M{num(left)} {num(_TOP)}V{num(bottom)}H{num(right)}" class="axis"/>')
    out.append(text((left + right) / 2, HEIGHT - 8, "days from this alert (TAI)", cls="label"))
    out.append(text(16, (bottom + _TOP) / 2, y_name, cls="label", turned=True))
    return out


def _band(marks: list[_Mark], band: str, x: Scale, y: Scale, size: float) -> list[str]:
    """Draw a band as a few paths: bars, filled detections, hollow forced points, arrows for limits."""
    drawn = style(band)
    bars: list[str] = []
    limits: list[str] = []
    detections: list[str] = []
    forced: list[str] = []
    minus: dict[str, list[str]] = {"#fff": [], drawn.colour: []}
    for mark in marks:
        at_x, at_y = x(mark.x), y(mark.y)
        if mark.kind == "limit":
            limits.append(_arrow(at_x, at_y, size))
            continue
        if mark.high > mark.low:
            bars.append(f"M{num(at_x)} {num(y(mark.low))}V{num(y(mark.high))}")
        is_filled = mark.kind == "detection"
        (detections if is_filled else forced).append(_shape(drawn.mark, at_x, at_y, size))
        if mark.is_negative:
            minus["#fff" if is_filled else drawn.colour].append(f"M{num(at_x - 2.4)} {num(at_y)}h4.8")
    edge = num(1.5 * size)
    lines = [(bars, drawn.colour, "1"), (limits, drawn.colour, "1.3")]
    inside = [(paths, colour, "1.6") for colour, paths in minus.items()]
    shapes = [(forced, "#fff", drawn.colour, edge), (detections, drawn.colour, "#fff", num(0.8 * size))]
    out = [_path(paths, "none", colour, width) for paths, colour, width in lines if paths]
    out += [_path(paths, fill, stroke, width) for paths, fill, stroke, width in shapes if paths]
    return out + [_path(paths, "none", colour, width) for paths, colour, width in inside if paths]


def _path(paths: list[str], fill: str, stroke: str, width: str) -> str:
    return f'<path d="{"".join(paths)}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def _arrow(x: float, y: float, size: float = 1.0) -> str:
    """Return an upper limit: a short bar with an arrow towards the faint end, which is down in every drawing."""
    tip = num(3.5 * size)
    half = num(4.5 * size)
    return (
        f"M{num(x - 4 * size)} {num(y)}h{num(8 * size)}M{num(x)} {num(y)}v{num(_ARROW * size)}"
        f"m-{tip} -{half}l{tip} {half}l{tip} -{half}"
    )


_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
    "triangle": ((0, -5.2), (5, 3.5), (-5, 3.5)),
    "triangle-down": ((0, 5.2), (5, -3.5), (-5, -3.5)),
    "diamond": ((0, -5.6), (5, 0), (0, 5.6), (-5, 0)),
    "plus": (
        (-1.6, -5), (1.6, -5), (1.6, -1.6), (5, -1.6), (5, 1.6), (1.6, 1.6),
        (1.6, 5), (-1.6, 5), (-1.6, 1.6), (-5, 1.6), (-5, -1.6), (-1.6, -1.6),
    ),
}  # fmt: skip


def _shape(mark: str, x: float, y: float, size: float = 1.0) -> str:
    """Return the outline of a mark about 9 units wide."""
    if mark == "circle":
        r, d = num(4.5 * size), num(9 * size)
        return f"M{num(x)} {num(y)}m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z"
    corners = [f"{num(x + size * dx)} {num(y + size * dy)}" for dx, dy in _OUTLINES[mark]]
    return f"M{'L'.join(corners)}z"


def legend_mark(band: str, kind: str) -> str:
    """Return a small SVG of a band's mark, for the legend; ``kind`` as in :class:`Points`."""
    drawn = style(band)
    if kind == "limit":
        path = f'<path d="{_arrow(9, 3)}" fill="none" stroke="{drawn.colour}" stroke-width="1.4"/>'
    else:
        fill = drawn.colour if kind == "detection" else "#fff"
        path = f'<path d="{_shape(drawn.mark, 9, 9)}" fill="{fill}" stroke="{drawn.colour}" stroke-width="1.5"/>'
    return f'<svg class="key" viewBox="0 0 18 18" aria-hidden="true">{path}</svg>'
