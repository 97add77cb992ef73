"""A plot area in SVG: scales, round ticks, and text that is safe to embed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NU = "\N{GREEK SMALL LETTER NU}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """A linear map from data to the screen."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value stands on the screen."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def span(values: Sequence[float], *, margin: float = 0.06, least: float = 1e-9) -> tuple[float, float]:
    """Return the range of values with some margin, never empty."""
    low, high = min(values), max(values)
    width = max(high - low, least)
    middle = (low + high) / 2
    reach = width * (0.5 + margin)
    return middle - reach, middle + reach


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round values (steps of 1, 2 or 5 times a power of ten) within a range, ascending."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """Return a tick label with the digits that its neighbours need, thousands separated, a true minus sign."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}".replace("-", MINUS)


def power_of_ten(exponent: int) -> str:
    """Return ``10⁴²`` for 42."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def text(x: float, y: float, content: str, *, anchor: str = "middle", cls: str = "", turned: bool = False) -> str:
    """Return an SVG text element, its content escaped."""
    turn = f' transform="rotate(-90 {num(x)} {num(y)})"' if turned else ""
    name = f' class="{cls}"' if cls else ""
    return f'<text x="{num(x)}" y="{num(y)}" text-anchor="{anchor}"{name}{turn}>{escape(content)}</text>'


def num(value: float) -> str:
    """Return a coordinate with one decimal and no needless zero."""
    shown = f"{value:.1f}"
    shown = shown.removesuffix(".0")
    return "0" if shown == "-0" else shown
