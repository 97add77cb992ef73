"""Counter-based random numbers: every draw is a hash of (seed, key, stream, counter).

A draw belongs to an object (or an alert), never to a row or a batch, so the output of the simulator does not depend on
how it is cut into batches. The hash is SplitMix64's finaliser applied to each word in turn (Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import numba as nb
import numpy as np
from scipy.special import ndtri

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S16 = (np.uint64(shift) for shift in (30, 27, 31, 11, 16))
_MASK16 = np.uint64(0xFFFF)

QUANTILES = ndtri((np.arange(65536) + 0.5) / 65536.0).astype(np.float32)
"""Standard normal quantiles at 65,536 mid-points, shape (65536,): one look-up per pixel of noise."""


@nb.njit(inline="always")
def mix(word: np.uint64) -> np.uint64:
    """Return SplitMix64's finaliser of one 64-bit word."""
    word = (word ^ (word >> _S30)) * _M1
    word = (word ^ (word >> _S27)) * _M2
    return word ^ (word >> _S31)


@nb.njit(inline="always")
def state_of(seed: np.uint64, key: np.uint64, stream: np.uint64, counter: np.uint64) -> np.uint64:
    """Return the 64 random bits of one (seed, key, stream, counter)."""
    word = mix(seed + GOLDEN)
    word = mix(word ^ (key + GOLDEN))
    word = mix(word ^ (stream + GOLDEN))
    return mix(word ^ (counter + GOLDEN))


@nb.njit(inline="always")
def to_unit(word: np.uint64) -> float:
    """Return a uniform number in (0, 1) from 64 random bits."""
    return ((word >> _S11) + 0.5) * (1.0 / 9007199254740992.0)


@nb.njit(inline="always")
def normal_of(seed: np.uint64, key: np.uint64, stream: np.uint64, counter: np.uint64) -> float:
    """Return one standard normal number (Box & Muller 1958)."""
    word = state_of(seed, key, stream, counter)
    u, v = to_unit(word), to_unit(mix(word + GOLDEN))
    return np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _uniform(seed, keys, stream, counters, out):  # type: ignore[no-untyped-def]
    for i in range(keys.size):
        out[i] = to_unit(state_of(seed, keys[i], stream, counters[i]))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _normal(seed, keys, stream, counters, out):  # type: ignore[no-untyped-def]
    for i in range(keys.size):
        out[i] = normal_of(seed, keys[i], stream, counters[i])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def fill_noise(state, quantiles, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (float32, flat) with standard normal pixels, four from each 64-bit word after ``state``."""
    n = out.size
    i = 0
    while i < n:
        state = state + GOLDEN
        word = mix(state)
        for _ in range(4):
            if i < n:
                out[i] = quantiles[word & _MASK16]
                i += 1
            word = word >> _S16


def stream_number(name: str) -> np.uint64:
    """Return the stream number of a name: draws of different names are independent."""
    value = np.uint64(1469598103934665603)
    with np.errstate(over="ignore"):
        for byte in name.encode():  # FNV-1a
            value = (value ^ np.uint64(byte)) * np.uint64(1099511628211)
    return value


class Draws:
    """Random numbers of named streams under one seed.

    Parameters
    ----------
    seed : int
        Any integer; taken modulo 2^64.
    """

    def __init__(self, seed: int) -> None:
        self.seed = np.uint64(seed % 2**64)

    def _prepared(self, keys: np.ndarray, counter: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        keys = np.ascontiguousarray(keys, dtype=np.int64).view(np.uint64)
        counters = np.broadcast_to(np.asarray(counter, dtype=np.int64), keys.shape)
        return keys, np.ascontiguousarray(counters).view(np.uint64)

    def uniform(
        self, name: str, keys: np.ndarray, low: float = 0.0, high: float = 1.0, counter: np.ndarray | int = 0
    ) -> np.ndarray:
        """Return uniform numbers in (low, high), shape (n,), one per key."""
        keys, counters = self._prepared(keys, counter)
        out = np.empty(keys.size)
        _uniform(self.seed, keys, stream_number(name), counters, out)
        return low + (high - low) * out

    def log_uniform(
        self, name: str, keys: np.ndarray, low: float, high: float, counter: np.ndarray | int = 0
    ) -> np.ndarray:
        """Return numbers uniform in their logarithm between low and high, shape (n,)."""
        return np.exp(self.uniform(name, keys, np.log(low), np.log(high), counter))

    def normal(
        self, name: str, keys: np.ndarray, mean: float = 0.0, sigma: float = 1.0, counter: np.ndarray | int = 0
    ) -> np.ndarray:
        """Return normal numbers, shape (n,), one per key."""
        keys, counters = self._prepared(keys, counter)
        out = np.empty(keys.size)
        _normal(self.seed, keys, stream_number(name), counters, out)
        return mean + sigma * out

    def integers(self, name: str, keys: np.ndarray, low: int, high: int, counter: np.ndarray | int = 0) -> np.ndarray:
        """Return integers in [low, high), shape (n,), one per key."""
        return np.floor(self.uniform(name, keys, low, high, counter)).astype(np.int64)

    def choice(self, name: str, keys: np.ndarray, weights: np.ndarray, counter: np.ndarray | int = 0) -> np.ndarray:
        """Return indices into ``weights`` drawn with those weights, shape (n,)."""
        total = np.cumsum(np.asarray(weights, dtype=np.float64))
        return np.searchsorted(total, self.uniform(name, keys, counter=counter) * total[-1], side="right")
