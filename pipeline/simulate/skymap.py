"""The multi-order sky map of the simulated merger: an ellipse on the sky, a distance with an error.

Cells are fine where the probability is. Columns and their meaning are those of the LIGO-Virgo-KAGRA maps (Singer et
al. 2016, doi:10.3847/2041-8205/829/1/L15): the distance posterior of a cell is DISTNORM r^2 N(r; DISTMU, DISTSIGMA).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from pipeline.healpix import pix2ang, to_uniq
from pipeline.simulate.draws import Draws
from pipeline.simulate.geometry import to_sky, to_tangent
from pipeline.simulate.hosts import Event

ORDERS = (4, 5, 6, 7, 8)
"""Orders of the cells, from everywhere to the middle of the ellipse."""

_REACH = (np.inf, 6.0, 4.5, 3.2, 2.0)
"""Cells within so many sigma are split down to the order at the same place of ORDERS."""

DEEPEST_LEVEL = 0.7
"""The merger lies at a credible level drawn uniformly below this, so well within the 90 % region."""


@dataclass(frozen=True)
class SkyMap:
    """A multi-order map; arrays of shape (n_cells,), ordered by ``uniq``.

    ``density`` in 1/sr; ``mu``, ``sigma`` in Mpc, ``norm`` in 1/Mpc^2. ``mean_mpc`` and ``std_mpc`` describe the
    distance of the whole map.
    """

    uniq: np.ndarray
    density: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray
    norm: np.ndarray
    mean_mpc: float
    std_mpc: float
    max_order: int


def draw_map(event: Event, ra: float, dec: float, draws: Draws) -> SkyMap:
    """Return a map of ``event`` that holds (ra, dec, its distance) as a draw from the posterior would.

    The centre is displaced from the true place by a draw from the map's own Gaussian, cut at ``DEEPEST_LEVEL``; the
    mode of the distance by a draw from its own error, cut at 1.5 sigma.
    """
    key = np.array([event.key])
    long_deg, short_deg = draws.uniform("map length", key, 5.0, 9.0)[0], draws.uniform("map width", key, 1.2, 2.5)[0]
    turn = draws.uniform("map angle", key, 0.0, np.pi)[0]
    radius = np.sqrt(-2.0 * np.log1p(-draws.uniform("map level", key, 0.0, DEEPEST_LEVEL)[0]))
    around = draws.uniform("map direction", key, 0.0, 2 * np.pi)[0]
    u, v = radius * np.cos(around) * long_deg, radius * np.sin(around) * short_deg
    east, north = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
    centre = [float(value) for value in to_sky(float(east), float(north), ra, dec)]

    def sigmas(cell_ra: np.ndarray, cell_dec: np.ndarray) -> np.ndarray:
        xi, eta = to_tangent(cell_ra, cell_dec, centre[0], centre[1])
        far = ~np.isfinite(xi)  # the other half of the sky
        xi, eta = np.where(far, 0.0, xi), np.where(far, 0.0, eta)
        along, across = xi * np.cos(turn) + eta * np.sin(turn), -xi * np.sin(turn) + eta * np.cos(turn)
        return np.where(far, np.inf, np.hypot(along / long_deg, across / short_deg))

    order, cells = _cells(sigmas, short_deg)
    cell_ra = np.empty(cells.size)
    cell_dec = np.empty(cells.size)
    for level in ORDERS:
        here = order == level
        cell_ra[here], cell_dec[here] = pix2ang(level, cells[here])
    weight = np.exp(-0.5 * np.minimum(sigmas(cell_ra, cell_dec), 12.0) ** 2)
    density = weight / np.sum(weight * np.pi / 3.0 / 4.0**order)
    sigma = 0.18 * event.distance_mpc
    shift = np.clip(draws.normal("map distance", key)[0], -1.5, 1.5)
    mu = np.full(cells.size, event.distance_mpc + shift * sigma)
    mean, std = _moments(float(mu[0]), sigma)
    ratio = mu / sigma
    normal = (mu**2 + sigma**2) * norm.cdf(ratio) + mu * sigma * norm.pdf(ratio)
    uniq = to_uniq(order, cells)
    rank = np.argsort(uniq)
    return SkyMap(uniq[rank], density[rank], mu, np.full(cells.size, sigma), 1.0 / normal, mean, std, int(order.max()))


def _cells(sigmas, short_deg: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Return orders and numbers of cells that cover the sky once, split where ``sigmas`` is small."""
    cells = np.arange(12 * 4 ** ORDERS[0])
    orders, kept = [], []
    for order, reach in zip(ORDERS, (*_REACH[1:], -1.0), strict=True):
        ra, dec = pix2ang(order, cells)
        margin = np.degrees(np.sqrt(np.pi / 3.0 / 4.0**order)) / short_deg
        split = sigmas(ra, dec) < reach + margin if reach > 0 else np.zeros(cells.size, bool)
        orders.append(np.full(int((~split).sum()), order))
        kept.append(cells[~split])
        cells = (4 * cells[split][:, None] + np.arange(4)[None, :]).reshape(-1)
    return np.concatenate(orders), np.concatenate(kept)


def _moments(mu: float, sigma: float) -> tuple[float, float]:
    """Return mean and standard deviation of the density proportional to r^2 N(r; mu, sigma) on r > 0."""
    r = np.linspace(0.0, mu + 8.0 * sigma, 20001)
    density = r**2 * norm.pdf(r, mu, sigma)
    density /= density.sum()
    mean = float(np.sum(r * density))
    return mean, float(np.sqrt(np.sum((r - mean) ** 2 * density)))
