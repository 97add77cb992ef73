"""Colours and marks of bands: told apart by shape too, and at least 3:1 against white (WCAG 2.1, 1.4.11)."""

from __future__ import annotations

from dataclasses import dataclass

INK = "#1b2733"
FAINT = "#5b6b7a"
RULE = "#d5dce3"
ACCENT = "#0b5cad"


@dataclass(frozen=True)
class BandStyle:
    """How a band is drawn: colour, mark in SVG and in matplotlib, line style, pivot wavelength (None if not known)."""

    colour: str
    mark: str
    plot_mark: str
    line: str
    pivot_nm: float | None


_PIVOT_NM = {"u": 367.1, "g": 482.7, "r": 622.3, "i": 754.6, "z": 869.1, "y": 971.2}
"""Pivot wavelengths of the LSST bands; those of ZTF g, r and i are within 4 %."""

_STYLES = {
    "u": BandStyle("#1f5fd0", "diamond", "D", ":", _PIVOT_NM["u"]),
    "g": BandStyle("#00806b", "circle", "o", "-", _PIVOT_NM["g"]),
    "r": BandStyle("#d1460f", "square", "s", "--", _PIVOT_NM["r"]),
    "i": BandStyle("#7a3e9d", "triangle", "^", "-.", _PIVOT_NM["i"]),
    "z": BandStyle("#8a6500", "triangle-down", "v", ":", _PIVOT_NM["z"]),
    "y": BandStyle("#3a3a3a", "plus", "P", "-", _PIVOT_NM["y"]),
}
_OTHER = BandStyle(FAINT, "circle", "o", "-", None)


def style(band: str) -> BandStyle:
    """Return the style of a band; one that is not known is grey."""
    return _STYLES.get(band.lower(), _OTHER)


def in_order(bands: set[str]) -> list[str]:
    """Return bands from blue to red, others after them by name."""
    return sorted(bands, key=lambda band: (style(band).pivot_nm or 1e9, band))
