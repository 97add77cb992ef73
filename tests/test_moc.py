"""Coverage maps against mocpy, both ways, and by properties."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from mocpy import MOC

from pipeline import healpix
from pipeline.errors import InputError
from pipeline.healpix import moc

SKY = 12 << 58


@st.composite
def range_sets(draw: st.DrawFn) -> np.ndarray:
    """Return range sets of cells of any order, neighbours and nested ones among them, or the whole sky, or none."""
    cells = draw(st.lists(st.tuples(st.integers(0, 29), st.floats(0, 1, exclude_max=True)), max_size=30))
    orders = np.array([order for order, _ in cells], dtype=np.int64)
    place = np.array([int(at * (12 << (2 * order))) for order, at in cells], dtype=np.int64)
    return healpix.ranges_of(orders, place)


def from_bytes(data: bytes) -> MOC:
    with fits.open(io.BytesIO(data)) as opened:
        assert opened[1].header["ORDERING"] == "NUNIQ"
        opened.verify("exception")
    return MOC._from_fits_raw_bytes(data)


@given(range_sets())
def test_every_form_reads_as_it_was_written_here_and_by_mocpy(ranges: np.ndarray) -> None:
    theirs = MOC.from_depth29_ranges(29, ranges.astype(np.uint64))
    forms = [moc.moc_fits(ranges), moc.moc_json(ranges).encode(), moc.moc_ascii(ranges).encode()]
    for form in (*forms, gzip.compress(forms[0])):
        np.testing.assert_array_equal(moc.parse_moc(form), ranges)
    assert from_bytes(forms[0]) == theirs
    assert MOC.from_string(forms[1].decode(), "json") == theirs
    assert MOC.from_string(forms[2].decode(), "ascii") == theirs
    for text in (theirs.to_string("json"), theirs.to_string("ascii")):
        if text.strip():
            np.testing.assert_array_equal(moc.parse_moc(text.encode()), ranges)


@pytest.mark.parametrize("is_first_version", [True, False])
@given(ranges=range_sets())
def test_files_of_mocpy_are_read(is_first_version: bool, ranges: np.ndarray) -> None:
    out = io.BytesIO()
    theirs = MOC.from_depth29_ranges(29, ranges.astype(np.uint64))
    column = theirs.uniq_hpx.astype(np.int64) if is_first_version else theirs.to_depth29_ranges.astype(np.int64).ravel()
    name = "NUNIQ" if is_first_version else "RANGE"
    table = fits.BinTableHDU.from_columns([fits.Column(name[-4:], "1K", array=column)])
    table.header.update({"ORDERING": name, "MOCDIM": "SPACE", "COORDSYS": "C"})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    np.testing.assert_array_equal(moc.parse_moc(out.getvalue()), ranges)


def test_files_that_mocpy_saved_are_read(tmp_path: Path) -> None:
    theirs = MOC.from_string("0/3 2/5-7 10/12345")
    for old in (True, False):
        file = tmp_path / f"{old}.fits"
        theirs.save(file, format="fits", v1_compatible=old)
        ours = moc.parse_moc(file.read_bytes())
        np.testing.assert_array_equal(ours, theirs.to_depth29_ranges.astype(np.int64))


@given(range_sets(), st.integers(0, 29))
def test_cells_are_the_fewest_that_cover(ranges: np.ndarray, max_order: int) -> None:
    runs = moc.cells_by_order(ranges, max_order)
    orders = np.concatenate([np.full(int((run[:, 1] - run[:, 0]).sum()), order) for order, run in enumerate(runs)])
    cells = np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for run in runs for a, b in run)])
    theirs = MOC.from_depth29_ranges(29, ranges.astype(np.uint64))
    if max_order < theirs.max_order:
        theirs = theirs.degrade_to_order(max_order)
    covered = healpix.ranges_of(orders.astype(np.int64), cells)
    np.testing.assert_array_equal(covered, theirs.to_depth29_ranges.astype(np.int64))
    np.testing.assert_array_equal(np.sort(healpix.to_uniq(orders.astype(np.int64), cells)), np.sort(theirs.uniq_hpx))


def test_whole_sky_and_nothing() -> None:
    assert moc.moc_ascii(healpix.ALL_SKY, 5) == "0/0-11 5/"
    assert json.loads(moc.moc_json(healpix.ALL_SKY, 5)) == {"0": list(range(12)), "5": []}
    assert moc.moc_ascii(np.empty((0, 2), np.int64), 3) == "3/"
    assert len(moc.parse_moc(b"3/")) == 0
    assert moc.parse_moc(b"1/0-2,4 3/").tolist() == [[0, 3 << 56], [4 << 56, 5 << 56]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"0/12", "none of order 0"),
        (b"0/5-3", "none of order 0"),
        (b"30/1", "order 30"),
        (b"12", "before an order"),
        (b"0/9999999999999999999", "none of order 0"),
        (b"hello", "none of order/cell"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"0": [12]}', "none of order 0"),
        (b'{"0": [true]}', "no number"),
        (b'{"a": [1]}', "no order"),
        (b'{"0": 1}', "no order"),
        (b"{" * 100_000, "cannot be read"),
        (moc.moc_fits(healpix.ALL_SKY)[:4000], "too early"),
        (moc.moc_fits(healpix.ALL_SKY).replace(b"'NUNIQ   '", b"'NESTED  '"), "neither NUNIQ nor RANGE"),
        (moc.moc_fits(healpix.ALL_SKY).replace(b"'SPACE   '", b"'TIME    '"), "TIME"),
        (moc.moc_fits(healpix.ALL_SKY).replace(b"'C       '", b"'G       '"), "coordinates G"),
    ],
)
def test_what_is_no_coverage_map_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        moc.parse_moc(data, "bad.moc")
    assert "bad.moc" in str(caught.value)
    assert "\n" not in str(caught.value)
