"""Columns of ZTF records: identity, exposure, detection, neighbours.

Each function fills columns of any record that has the fields; ``owner`` (n,) is the alert's row in the measured slice
and ``point`` (n,) the point of its light curve.
"""

from __future__ import annotations

import numpy as np

from pipeline.simulate.encode import Columns, Heap
from pipeline.simulate.geometry import offset
from pipeline.simulate.measure import Measured, astrometry, point_key, source_offset
from pipeline.simulate.movers import ARTEFACTS, solar_system_name
from pipeline.simulate.night import Night
from pipeline.simulate.packets import calendar, digits, letters, text_columns
from pipeline.simulate.populations import CODES
from pipeline.simulate.variables import DWARF_NOVA, ECLIPSING, NUCLEUS, RR_LYRAE

SURVEY_START_JD = 2458194.5
REFERENCE_LIMIT_MAG = 23.5
"""Sources of the reference image are at least so bright; PS1 sees half a magnitude less."""
_EPOCH_JD = 2457754.5
_FILTERS = np.frombuffer(b"gr", np.uint8)
_PERSISTENT = (RR_LYRAE, ECLIPSING, DWARF_NOVA, NUCLEUS)


def processing_id(jd: np.ndarray, rcid: np.ndarray) -> np.ndarray:
    """Return ``pid``: nights since 2017-01-01, five digits of the day, readout channel, 15."""
    days = jd - _EPOCH_JD
    night = np.floor(days).astype(np.int64)
    return ((night * 100_000 + np.floor((days - night) * 1e5).astype(np.int64)) * 100 + rcid) * 100 + 15


def alert_ids(night: Night, rows: np.ndarray) -> np.ndarray:
    """Return ``candid`` of the alerts ``rows``, int64 (n,)."""
    rcid = night.objects.detector[night.alert_object[rows]]
    pid = processing_id(night.visits.jd[night.alert_visit[rows]], rcid)
    return pid * 1_000_000 + 10_000 + night.alert_number[rows]


def object_ids(night: Night, rows: np.ndarray, first_jd: np.ndarray) -> np.ndarray:
    """Return ``objectId`` of objects ``rows`` as text, uint8 (n, 12): ZTF, the year of discovery, seven letters."""
    shift = int(night.draws.integers("object ids", np.array([night.night]), 0, 26**7)[0])
    numbers = (rows * 1_594_323_277 + shift) % 26**7  # a bijection: the factor has no divisor 2 or 13
    return text_columns(rows.size, b"ZTF", digits(calendar(first_jd) // 10000 % 100, 2), letters(numbers, 7))


def _image_names(jd: np.ndarray, field: np.ndarray, rcid: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Return names of difference images, uint8 (n, width)."""
    return text_columns(
        jd.size, b"ztf_", digits(calendar(jd), 8), _day_part(jd), b"_", digits(field, 6), b"_z",
        _FILTERS[band][:, None], b"_c", digits(rcid // 4 + 1, 2), b"_o_q", digits(rcid % 4 + 1, 1),
        b"_scimrefdiffimg.fits",
    )  # fmt: skip


def _day_part(jd: np.ndarray) -> np.ndarray:
    """Return six digits of the fraction of the UTC day."""
    return digits(np.floor((jd - 0.5 - np.floor(jd - 0.5)) * 1e6), 6)


def zero_points(night: Night, visit: np.ndarray, rcid: np.ndarray) -> np.ndarray:
    """Return the magnitude of 1 DN of each image, shape (n,)."""
    base = night.instrument.zero_point_mag[night.visits.band[visit]]
    return base + night.draws.normal("zero point", visit * 64 + rcid, 0.0, 0.05)


def set_exposure(
    out: Columns,
    prefix: str,
    night: Night,
    m: Measured,
    owner: np.ndarray,
    point: np.ndarray,
    heap: Heap,
    *,
    archive: bool,
) -> np.ndarray:
    """Set what belongs to the image; returns its ``pid``. ``archive``: file names as histories give them."""
    visits, draws = night.visits, night.draws
    visit, rcid = m.point_visit[point], m.detector[owner]
    jd, band = visits.jd[visit], visits.band[visit]
    field = visits.field_number[visits.field[visit]]
    pid = processing_id(jd, rcid)
    image = visit * 64 + rcid
    zero_point = zero_points(night, visit, rcid)
    for name, values in (
        ("jd", jd), ("fid", band + 1), ("pid", pid), ("programid", 1), ("field", field), ("rcid", rcid),
        ("nid", np.floor(jd - _EPOCH_JD)), ("diffmaglim", visits.limit_mag[visit] + m.objects.limit_shift[owner]),
        ("magzpsci", zero_point), ("magzpsciunc", draws.log_uniform("magzpsciunc", image, 2e-6, 3e-5)),
        ("magzpscirms", draws.uniform("magzpscirms", image, 0.02, 0.06)),
        ("clrcoeff", np.where(band == 0, -0.05, 0.09) + draws.normal("clrcoeff", image, 0.0, 0.01)),
        ("clrcounc", draws.log_uniform("clrcounc", image, 4e-6, 5e-5)), ("exptime", night.instrument.exposure_sec),
        ("rfid", (field * 1000 + 120 + band + 1) * 100 + rcid),
    ):  # fmt: skip
        out.set(prefix + name, values)
    names = _image_names(jd, field, rcid, band)
    if archive and prefix + "pdiffimfilename" in out:
        date = digits(calendar(jd), 8)
        folder = (b"/ztf/archive/sci/", date[:, :4], b"/", date[:, 4:], b"/", _day_part(jd), b"/")
        names = text_columns(jd.size, *folder, names, b".fz")
    if prefix + "pdiffimfilename" in out:
        out.set(prefix + "pdiffimfilename", heap.add_matrix(names))
        out.set(prefix + "programpi", np.broadcast_to(heap.add([b"Kulkarni"]), visit.size))
    version = heap.add([b"t17_f5_c3", b"d6_m7"])
    out.set(prefix + "rbversion", np.broadcast_to(version[0], visit.size))
    out.set(prefix + "drbversion", np.broadcast_to(version[1], visit.size))
    return pid


def set_detection(
    out: Columns,
    prefix: str,
    night: Night,
    m: Measured,
    owner: np.ndarray,
    point: np.ndarray,
    candid: np.ndarray,
    heap: Heap,
    null: np.ndarray | None = None,
) -> None:
    """Set what was measured of a detection; null where ``null`` (bool, (n,)) says that there was none."""
    draws, o = night.draws, m.objects
    visit = m.point_visit[point]
    key = point_key(o, owner, visit)
    flux, error = m.point_flux[point], m.point_error[point]
    size = np.maximum(np.abs(flux), 1e-3)
    mag, sigma = 31.4 - 2.5 * np.log10(size), 1.0857 * error / size
    east, north = astrometry(night, m, owner, point)
    ra, dec = offset(o.ra[owner], o.dec[owner], east, north)
    aperture = mag + sigma * draws.normal("aperture", key, 0.0, 0.5)
    x = o.x[owner] + draws.normal("dither x", visit, 0.0, 3.0)
    y = o.y[owner] + draws.normal("dither y", visit, 0.0, 3.0)
    camera = night.instrument.camera
    edge = np.minimum(np.minimum(x, camera.width_px - x), np.minimum(y, camera.height_px - y))
    signs = heap.add([b"f", b"t"])
    scale = night.instrument.stamp_scale_arcsec
    fwhm = night.visits.seeing_arcsec[visit] / scale * np.exp(draws.normal("fwhm", key, 0.0, 0.08))
    bogus = o.code[owner] == CODES["bogus"]
    kinds = np.array([1.4, 0.5, 0.7, 0.4, 3.2])[np.where(bogus, o.link[owner], 0) % len(ARTEFACTS)]
    fwhm = np.where(bogus, fwhm * kinds, fwhm)
    axis = fwhm / 2.355 * 0.9
    elong = 1.0 + np.abs(draws.normal("elong", key, 0.0, 0.1)) + bogus * draws.uniform("bogus elong", key, 0.0, 0.8)
    rb = np.where(bogus, 0.5 * draws.uniform("rb", key) ** 1.2, 1.0 - 0.4 * draws.uniform("rb", key) ** 1.8 - 0.02)
    for name, values in (
        ("candid", candid), ("isdiffpos", signs[(flux > 0).astype(np.int64)]), ("tblid", candid % 10_000),
        ("xpos", x), ("ypos", y), ("ra", ra), ("dec", dec), ("magpsf", mag), ("sigmapsf", sigma),
        ("chipsf", draws.log_uniform("chipsf", key, 0.6, 3.0) * np.where(bogus, 10.0, 1.0)), ("magap", aperture),
        ("sigmagap", 1.2 * sigma), ("sky", draws.normal("sky", key, 0.0, 0.4)), ("magdiff", aperture - mag),
        ("fwhm", fwhm), ("classtar", np.where(bogus, 0.3, 1.0) - 0.3 * draws.uniform("classtar", key)),
        ("mindtoedge", edge), ("magfromlim", night.visits.limit_mag[visit] + o.limit_shift[owner] - aperture),
        ("seeratio", fwhm * scale / night.visits.seeing_arcsec[visit]), ("aimage", axis * np.sqrt(elong)),
        ("bimage", axis / np.sqrt(elong)), ("aimagerat", axis * np.sqrt(elong) / fwhm),
        ("bimagerat", axis / np.sqrt(elong) / fwhm), ("elong", elong),
        ("nneg", np.floor(draws.uniform("nneg", key) * np.where(bogus, 12, 3))),
        ("nbad", np.where(bogus & (draws.uniform("nbad", key) < 0.2), 2, 0)), ("rb", rb),
        ("sumrat", np.where(bogus, 0.3 + 0.6 * draws.uniform("sumrat", key), 1.0)),
        ("magapbig", aperture + sigma * draws.normal("big aperture", key, 0.0, 0.3)), ("sigmagapbig", 1.6 * sigma),
        ("scorr", np.abs(flux) / error),
    ):  # fmt: skip
        out.set(prefix + name, values, null)
    set_source(out, prefix, night, m, owner, visit, east, north, null)


def set_source(
    out: Columns,
    prefix: str,
    night: Night,
    m: Measured,
    owner: np.ndarray,
    visit: np.ndarray,
    east: np.ndarray,
    north: np.ndarray,
    null: np.ndarray | None = None,
) -> None:
    """Set the nearest source of the reference image, seen from the object displaced by (east, north) arcsec."""
    o = m.objects
    source_east, source_north = source_offset(o)
    source_east, source_north = source_east[owner], source_north[owner]
    ra, dec = offset(o.ra[owner], o.dec[owner], source_east, source_north)
    flux = np.take_along_axis(o.source_njy[owner], night.visits.band[visit][:, None], 1)[:, 0]
    mag = np.minimum(31.4 - 2.5 * np.log10(flux), REFERENCE_LIMIT_MAG)
    star = o.source_arcsec[owner] <= 0.0
    for name, values in (
        ("distnr", np.hypot(source_east - east, source_north - north)), ("ranr", ra), ("decnr", dec), ("magnr", mag),
        ("sigmagnr", 0.01 + 0.2 * 10 ** (0.4 * np.minimum(mag - 22.5, 1.0))),
        ("chinr", np.where(star, 0.6, 1.4)), ("sharpnr", np.where(star, 0.0, 0.35)),
    ):  # fmt: skip
        out.set(prefix + name, values, null)


def first_detection(night: Night, m: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return detections, exposures and the Julian date of the first detection of each alert's place, shape (n,).

    The months before the simulated history are drawn: what varies for ever was detected then too, at the same rate.
    """
    visits, draws, o = night.visits, night.draws, m.objects
    owner, found = m.owner(), m.is_detected
    points = np.diff(m.offsets)
    detections = np.bincount(owner[found], minlength=m.rows.size)
    first_point = np.full(m.rows.size, -1)
    first_point[owner[found][::-1]] = np.flatnonzero(found)[::-1]
    first_jd = visits.jd[m.point_visit[first_point]]
    oldest = visits.jd[m.point_visit[m.offsets[:-1]]]
    before = np.maximum(oldest - SURVEY_START_JD, 0.0)
    covered = np.floor(before / 4.5 * draws.uniform("coverage", o.key, 0.7, 1.3)).astype(np.int64)
    rate = draws.uniform("older detections", o.key, 0.02, 0.6)
    older = np.where(np.isin(o.family, _PERSISTENT), np.floor(covered * rate), 0).astype(np.int64)
    start = oldest - before * (1.0 - draws.uniform("first detection", o.key) ** 2)
    return detections + older, covered + points, np.where(older > 0, np.floor(start * 1e5) / 1e5, first_jd)


def set_counts(out: Columns, night: Night, m: Measured) -> np.ndarray:
    """Set ``ndethist, ncovhist, jdstarthist, jdendhist``; returns the Julian dates of the first detections."""
    detections, covered, start = first_detection(night, m)
    for name, values in (
        ("ndethist", detections), ("ncovhist", covered), ("jdstarthist", start),
        ("jdendhist", night.visits.jd[m.visit]),
    ):  # fmt: skip
        out.set("candidate." + name, values)
    return start


def set_trigger_only(out: Columns, night: Night, m: Measured, candid: np.ndarray, heap: Heap) -> None:
    """Set what only ``candidate`` has: Solar System, PS1, Gaia, reference image, deep-learning score."""
    draws, o = night.draws, m.objects
    prefix = "candidate."
    _set_solar_system(out, prefix, night, m, candid, heap)
    _set_ps1(out, prefix, night, m, candid)
    jd, n = night.visits.jd[m.visit], candid.size
    bogus = o.code == CODES["bogus"]
    for name, values in (
        ("tooflag", 0), ("jdstartref", SURVEY_START_JD + 60.1234567 + o.field % 7), ("nframesref", 15 + o.field % 20),
        ("jdendref", SURVEY_START_JD + 180.2345678 + o.field % 11), ("nmatches", 150 + o.detector * 7),
        ("dsnrms", draws.uniform("dsnrms", candid, 2, 60)), ("ssnrms", draws.uniform("ssnrms", candid, 5, 100)),
        ("dsdiff", draws.normal("dsdiff", candid, -20, 15)),
        ("zpclrcov", draws.normal("zpclrcov", candid, -8e-5, 3e-5)),
        ("zpmed", zero_points(night, m.visit, m.detector) - 0.06), ("clrmed", 0.65 + 0.002 * (o.detector - 32)),
        ("clrrms", 0.29 + 0.0005 * o.detector),
        ("drb", np.where(bogus, 0.45 * draws.uniform("drb", candid), 1.0 - 0.3 * draws.uniform("drb", candid) ** 4)),
    ):  # fmt: skip
        out.set(prefix + name, np.broadcast_to(values, jd.shape) if n else values)
    own = o.source_sep_arcsec < 1.5
    mag = 31.4 - 2.5 * np.log10(o.source_njy[:, min(1, o.source_njy.shape[1] - 1)])
    gaia = own & (o.source_arcsec <= 0) & (mag < 20.5)
    far = draws.uniform("gaia", candid, 8.0, 80.0)
    bright = gaia & (mag < 14.0)
    for name, values in (
        ("neargaia", np.where(gaia, o.source_sep_arcsec, far)),
        ("maggaia", np.where(gaia, mag, draws.uniform("gaia mag", candid, 15.0, 20.5))),
        ("neargaiabright", np.where(bright, o.source_sep_arcsec, -999.0)),
        ("maggaiabright", np.where(bright, mag, -999.0)),
    ):
        out.set(prefix + name, values)


def _set_solar_system(out: Columns, prefix: str, night: Night, m: Measured, candid: np.ndarray, heap: Heap) -> None:
    o, draws = m.objects, night.draws
    known = o.code == CODES["asteroid_known"]
    rows = np.flatnonzero(known)
    text = [b"null", *(solar_system_name("asteroid_known", body).encode() for body in o.link[rows].tolist())]
    names = heap.add(text)
    which = np.zeros(candid.size, np.int64)
    which[rows] = 1 + np.arange(rows.size)
    predicted = 31.4 - 2.5 * np.log10(np.maximum(o.trigger_njy, 1e-9)) + draws.normal("ephemeris", candid, 0.0, 0.15)
    out.set(prefix + "ssnamenr", names[which])
    out.set(prefix + "ssdistnr", np.where(known, np.abs(draws.normal("ephemeris error", candid, 0.0, 0.8)), -999.0))
    out.set(prefix + "ssmagnr", np.where(known, predicted, -999.0))


def _set_ps1(out: Columns, prefix: str, night: Night, m: Measured, candid: np.ndarray) -> None:
    """Set the three nearest PS1 sources: the reference source if PS1 sees it, then chance neighbours."""
    o, draws = m.objects, night.draws
    red = min(1, o.source_njy.shape[1] - 1)
    mag_r = 31.4 - 2.5 * np.log10(o.source_njy[:, red])
    hue = 31.4 - 2.5 * np.log10(o.source_njy[:, 0]) - mag_r
    star = o.source_arcsec <= 0
    score = np.where(star, 1.0 - 0.15 * draws.uniform("score", candid) ** 2, 0.12 * draws.uniform("score", candid))
    is_seen = mag_r < REFERENCE_LIMIT_MAG - 0.5
    for rank in (1, 2, 3):
        apart = draws.uniform("PS1 neighbour", candid, 4.0, 11.0, counter=rank) + 7.0 * (rank - 1)
        apart = np.maximum(apart, np.where(is_seen, o.source_sep_arcsec, 0.0) + rank)
        red_mag = draws.uniform("PS1 mag", candid, 17.0, 22.3, counter=rank)
        value = draws.uniform("PS1 score", candid, counter=rank)
        colour = draws.normal("PS1 colour", candid, 0.6, 0.3, counter=rank)
        if rank == 1:
            apart, red_mag = np.where(is_seen, o.source_sep_arcsec, apart), np.where(is_seen, mag_r, red_mag)
            value, colour = np.where(is_seen, score, value), np.where(is_seen, hue, colour)
        for name, values in (
            ("sgmag", red_mag + colour), ("srmag", red_mag), ("simag", red_mag - 0.4 * colour),
            ("szmag", red_mag - 0.6 * colour), ("sgscore", value), ("distpsnr", apart),
            ("objectidps", 70_000_000_000_000_000 + draws.integers("PS1 id", o.key, 0, 10**16, counter=rank)),
        ):  # fmt: skip
            out.set(f"{prefix}{name}{rank}", values)
    out.set(prefix + "nmtchps", draws.integers("nmtchps", o.key, 3, 12))
