"""Reading sky maps: every form in which they are shipped, and what hostile or broken bytes do."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from pipeline import healpix, skymap
from pipeline.errors import CatalogError
from pipeline.healpix.fits import read_table

ORDER = 3
N_PIXELS = 12 << (2 * ORDER)
CELLS = np.arange(N_PIXELS) << (2 * (29 - ORDER))
SR = 4 * np.pi / N_PIXELS
DEG2 = SR * (180 / np.pi) ** 2


def file_of(columns: dict[str, tuple[str, np.ndarray]], units: dict[str, str] | None = None, **header: object) -> bytes:
    """Return a FITS file with a table of named (format, values)."""
    made = [
        fits.Column(name, form, array=values, unit=(units or {}).get(name)) for name, (form, values) in columns.items()
    ]
    table = fits.BinTableHDU.from_columns(made)
    table.header.update({"OBJECT": "S1", **header})
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def probability() -> np.ndarray:
    """Probability per nested pixel, all different."""
    weight = np.random.default_rng(5).gamma(0.3, size=N_PIXELS)
    return weight / weight.sum()


def check(data: bytes, probability: np.ndarray, rtol: float = 1e-13) -> None:
    ours = skymap.parse_skymap(data)
    np.testing.assert_allclose(skymap.levels(ours, CELLS)[1] * DEG2, probability, rtol=rtol, atol=0)


@pytest.mark.parametrize("form", ["D", "64D", "E", "64E"])
@pytest.mark.parametrize("ordering", ["NESTED", "RING", "nest"])
@pytest.mark.parametrize("name", ["PROB", "PROBABILITY", "prob"])
def test_flat_forms(probability: np.ndarray, form: str, ordering: str, name: str) -> None:
    shipped = healpy.reorder(probability, n2r=True) if ordering == "RING" else probability
    shipped = shipped.reshape(-1, 64) if form.startswith("64") else shipped
    data = file_of({name: (form, shipped)}, ORDERING=ordering, NSIDE=8, INDXSCHM="IMPLICIT")
    check(data, probability, 1e-13 if form.endswith("D") else 1e-6)
    check(gzip.compress(data[:5760]) + gzip.compress(data[5760:]), probability, 1e-13 if form.endswith("D") else 1e-6)


def test_map_written_by_healpy(tmp_path: Path, probability: np.ndarray) -> None:
    """Whole, and of a part of the sky: explicit pixel numbers, the rest marked as not seen."""
    for nest in (True, False):
        shipped = probability if nest else healpy.reorder(probability, n2r=True)
        file = tmp_path / f"{nest}.fits"
        healpy.write_map(file, shipped, nest=nest, column_names=["PROB"], dtype=np.float64)
        assert skymap.parse_skymap(file.read_bytes(), "whole").event == "whole"
        with pytest.raises(CatalogError, match="names no event"):  # OBJECT says how much of the sky there is
            skymap.parse_skymap(file.read_bytes())
        part = np.full(N_PIXELS, healpy.UNSEEN)
        seen = np.random.default_rng(0).choice(N_PIXELS, 100, replace=False)
        part[seen] = shipped[seen] / shipped[seen].sum()
        nested = part if nest else healpy.reorder(part, r2n=True)
        for is_partial in (True, False):
            healpy.write_map(
                file, part, nest=nest, partial=is_partial, column_names=["PROB"], dtype=np.float64, overwrite=True
            )
            ours = skymap.parse_skymap(file.read_bytes(), "part")
            density = skymap.levels(ours, CELLS)[1]
            np.testing.assert_allclose(density * DEG2, np.maximum(nested, 0), rtol=1e-13)
            assert (skymap.rows_at(ours, CELLS) >= 0).sum() == 100


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("sr-1", SR), ("1/sr", SR), ("sr^-1", SR), (None, SR), ("deg-2", DEG2), ("deg**-2", DEG2), ("pix-1", 1.0)],
)
@pytest.mark.parametrize("form", ["K", "J"])
def test_units_of_a_density(probability: np.ndarray, unit: str | None, factor: float, form: str) -> None:
    uniq = healpix.to_uniq(ORDER, np.arange(N_PIXELS))
    columns = {"UNIQ": (form, uniq), "PROBDENSITY": ("D", probability / factor)}
    check(file_of(columns, {"PROBDENSITY": unit} if unit else None, ORDERING="NUNIQ"), probability)


def test_unsigned_numbers_and_columns_between(probability: np.ndarray) -> None:
    """UNIQ of 64 bits without sign, as some writers ship it; odd widths before it move it off even places."""
    uniq = healpix.to_uniq(ORDER, np.arange(N_PIXELS))
    made = [
        fits.Column("NAME", "3A", array=np.full(N_PIXELS, "abc")),
        fits.Column("FLAGS", "11X", array=np.ones((N_PIXELS, 11), bool)),
        fits.Column("UNIQ", "K", bzero=1 << 63, array=uniq.astype(np.uint64)),
        fits.Column("PROBDENSITY", "D", array=probability / SR),
    ]
    table = fits.BinTableHDU.from_columns(made)
    table.header["OBJECT"] = "S1"
    out = io.BytesIO()
    image = fits.ImageHDU(np.zeros((7, 5), np.int16))
    fits.HDUList([fits.PrimaryHDU(np.zeros(3000, np.uint8)), image, table]).writeto(out)
    check(out.getvalue(), probability)
    read = read_table(out.getvalue())
    np.testing.assert_array_equal(read.integers("UNIQ"), uniq)


def test_header_and_columns_are_as_astropy_reads_them(shared_data: Path) -> None:
    for file in sorted((shared_data / "skymaps").glob("*.fits*")):
        if file.stat().st_size > 1_000_000:
            continue  # half a gigabyte once inflated
        ours = read_table(file.read_bytes())
        with fits.open(file) as opened:
            header, table = opened[1].header, opened[1].data
            for name in set(header) - {"COMMENT", "HISTORY", ""}:
                assert ours.header[name] == header[name], (file.name, name)
            for name in table.columns.names:
                np.testing.assert_array_equal(ours.floats(name), np.asarray(table[name], float).ravel())


def test_distance_of_the_header_and_pickles() -> None:
    uniq = healpix.to_uniq(0, np.arange(12))
    ones = np.ones(12)
    columns = {"UNIQ": ("K", uniq), "PROBDENSITY": ("D", ones / (4 * np.pi)), "DISTMU": ("D", ones * 40)}
    columns |= {"DISTSIGMA": ("D", ones * 5), "DISTNORM": ("D", ones / 1625)}
    ours = skymap.parse_skymap(file_of(columns, DISTMEAN=41.5, DISTSTD=6.5))
    assert (ours.distance_mean_mpc, ours.distance_std_mpc) == (41.5, 6.5)
    size = len(pickle.dumps(ours))
    ours.volume, ours.searched_area_deg2  # noqa: B018
    again = pickle.loads(pickle.dumps(ours))
    assert len(pickle.dumps(ours)) == size  # what is derived stays at home
    assert again.digest == ours.digest
    assert skymap.parse_skymap(file_of(columns, DISTMEAN="inf", DISTSTD=-1)).distance_mean_mpc is None


# ------------------------------------------------------------------------------------------------ what is refused
def prob(values: np.ndarray | None = None, **header: object) -> bytes:
    return file_of(
        {"PROB": ("D", np.full(12, 1 / 12) if values is None else values)}, **{"ORDERING": "NESTED"} | header
    )


def explicit(pixels: list[int], **header: object) -> bytes:
    columns = {"PIXEL": ("J", np.array(pixels)), "PROB": ("D", np.full(len(pixels), 1 / len(pixels)))}
    return file_of(columns, **{"ORDERING": "RING", "INDXSCHM": "EXPLICIT", "NSIDE": 1} | header)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (prob(COORDSYS="G"), "coordinates G, not equatorial .*rotate it"),
        (prob(COORDSYS="galactic"), "coordinates GALACTIC"),
        (prob(COORDSYS="E"), "coordinates E"),
        (prob(np.append(np.full(11, 1 / 11), -1e-9)), "negative"),
        (prob(np.append(np.full(11, 1 / 11), np.inf)), "not a number"),
        (prob(np.full(12, 0.085)), "sums to 1.02, not to 1"),
        (prob(np.zeros(12)), "sums to 0"),
        (prob(np.full(13, 1 / 13)), "13 pixels are no HEALPix map"),
        (prob(np.full(3, 1 / 3)), "3 pixels are no"),
        (prob(NSIDE=2), "12 pixels, but NSIDE is 2"),
        (file_of({"FLUX": ("D", np.ones(12))}), "no column PROBDENSITY or PROB"),
        (file_of({"PROB": ("A", np.full(12, "x"))}), "holds no numbers"),
        (file_of({"UNIQ": ("D", np.ones(12)), "PROBDENSITY": ("D", np.ones(12))}), "holds no integers"),
        (
            file_of({"UNIQ": ("2K", np.arange(4, 16).reshape(6, 2)), "PROBDENSITY": ("D", np.ones(6))}),
            "differ in length",
        ),
        (explicit([3, 3]), "overlap"),
        (explicit([3, 12]), "none of NSIDE 1"),
        (explicit([3, -1]), "none of NSIDE 1"),
        (explicit([3], NSIDE=3), "no HEALPix map"),
        (explicit([3], NSIDE="x"), "NSIDE is 'x'"),
        (
            prob().replace(b"NAXIS2  =                   12", b"NAXIS2  =          99999999999"),
            "announces 799999999992",
        ),
        (prob().replace(b"NAXIS2  =                   12", b"NAXIS2  =                 1200"), "too early"),
        (prob().replace(b"NAXIS2  =                   12", b"NAXIS2  =                   -1"), "no natural number"),
        (prob().replace(b"'D       '", b"'9999D   '"), "take 79992 bytes of a row"),
        (prob().replace(b"'D       '", b"'Z       '"), "TFORM1"),
        (prob().replace(b"BINTABLE", b"TABLE   "), "no table"),
        (b"", "too early"),
        (b"SIMPLE  =                    F".ljust(80) + b"END".ljust(2800), "SIMPLE"),
        (b"SIMPLE  =                    T".ljust(80) * 36 * 201, "no end"),
        (gzip.compress(prob())[:-4], "truncated"),
        (gzip.compress(prob())[:-8] + b"12345678", "damaged"),
    ],
)
def test_what_is_no_map_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        skymap.parse_skymap(data, source="bad.fits")
    assert "\n" not in str(caught.value)
    assert "bad.fits" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_little_less_than_one_is_borne() -> None:
    ours = skymap.parse_skymap(prob(np.full(12, 0.083)))
    assert skymap.levels(ours, [0])[0][0] == pytest.approx(0.996)


def test_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that announces much, with nothing behind it; much behind a table; much before one."""
    monkeypatch.setattr("pipeline.healpix.fits.LARGEST_BYTES", 1 << 24)
    much = gzip.compress(bytes(1 << 23)) * 3
    announced = prob().replace(b"NAXIS2  =                   12", b"NAXIS2  =              3000000")
    large, half = (with_image(np.zeros(n, np.uint8)) for n in (20_000_000, 9_000_000))
    behind = gzip.compress(prob()) + much
    for data in (announced, large, gzip.compress(large), behind, gzip.compress(half) + much):
        with pytest.raises(CatalogError, match=r"(larger|more) than 16 MiB"):
            skymap.parse_skymap(data)
    for data in (half, gzip.compress(half), behind[: len(behind) - len(much) * 2 // 3]):
        assert skymap.parse_skymap(data).event == "s1"


def with_image(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    with fits.open(io.BytesIO(prob())) as opened:
        fits.HDUList([fits.PrimaryHDU(image), opened[1]]).writeto(out)
    return out.getvalue()


def _seeds() -> list[bytes]:
    uniq = healpix.to_uniq(1, np.arange(48))
    ones = np.ones(48)
    columns = {"UNIQ": ("K", uniq), "PROBDENSITY": ("D", ones / (4 * np.pi)), "DISTMU": ("D", ones * 40)}
    columns |= {"DISTSIGMA": ("D", ones * 5), "DISTNORM": ("D", ones / 1625)}
    header = {"DATE-OBS": "2019-04-25T08:18:05", "DISTMEAN": 40.0}
    return [prob(), explicit([1, 5, 7]), file_of(columns, **header), gzip.compress(file_of(columns, **header))]


SEEDS = _seeds()


@given(
    st.integers(0, len(SEEDS) - 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_files_are_maps_or_one_line(seed: int, changes: list[tuple[float, int]], cut: float | None) -> None:
    data = bytearray(SEEDS[seed])
    for place, byte in changes:
        data[int(place * len(data))] = byte
    outcome(bytes(data if cut is None else data[: int(cut * len(data))]))


def test_thousands_of_damaged_headers() -> None:
    """Damage where it hurts: digits and letters of the headers, and the numbers of the table."""
    rng = np.random.default_rng(7)
    letters = np.frombuffer(b"0123456789-+.'/ TFDEKJX", np.uint8)
    refused = 0
    for round_ in range(4000):
        data = np.frombuffer(SEEDS[round_ % 3], np.uint8).copy()
        written = np.flatnonzero(data != 32)
        at = rng.choice(written, rng.integers(1, 4))
        data[at] = rng.choice(letters, len(at)) if round_ % 2 else rng.integers(0, 256, len(at))
        refused += not outcome(data.tobytes(), ask=round_ % 8 == 2)
    assert 500 < refused < 3500


def outcome(data: bytes, *, ask: bool = True) -> bool:
    """Return whether the bytes are a map, which then is a sane one; else the error is one line."""
    try:
        ours = skymap.parse_skymap(data, "fuzz", "fuzz.fits")
    except CatalogError as error:
        assert "\n" not in str(error)
        return False
    assert (ours.start < ours.stop).all()
    assert (ours.start[1:] >= ours.stop[:-1]).all()
    assert ours.start[0] >= 0
    assert ours.stop[-1] <= healpix.ALL_SKY[0, 1]
    assert ((ours.credible_level >= 0) & (ours.credible_level <= 1)).all()
    if len(data) % 8:  # some
        return True
    if not ask:
        return True
    level = skymap.volume_levels(ours, ours.start, np.full(len(ours.start), 40.0), 3.0)
    assert (np.isnan(level) | ((level >= 0) & (level <= 1))).all()
    return True
