"""Simulated nights end to end: the files against the truth beside them, and against independent readers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import avro.datafile
import avro.io
import fastavro
import healpy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, get_body_barycentric_posvel
from astropy.io import fits
from astropy.time import Time
from click.testing import CliRunner
from scipy.optimize import newton
from scipy.stats import kstest

from pipeline.cli.simulate import command
from pipeline.errors import InputError
from pipeline.simulate.geometry import separation_arcsec, unit_vector
from pipeline.simulate.measure import image_scene, measure
from pipeline.simulate.night import plan_night, targets
from pipeline.simulate.populations import CLASSES
from pipeline.simulate.ztf_fields import zero_points
from pipeline.simulation import VERSIONS, simulate
from pipeline.surveys import SURVEYS
from pipeline.surveys.superset import known_schemas

NIGHT = {"ztf": 20240115, "lsst": 20260309}
SEED = 11


class Simulation:
    """One simulated night, read back once."""

    def __init__(self, survey: str, folder: Path, alerts: int, **options) -> None:
        self.survey, self.folder = survey, folder
        self.done = simulate(NIGHT[survey], survey, alerts, SEED, folder, **options)
        self.packets, self.files, self.schemas = [], [], set()
        with tarfile.open(self.done.dump) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                reader = fastavro.reader(io.BytesIO(data))
                self.schemas.add(reader.metadata["avro.schema"])
                (packet,) = list(reader)
                self.packets.append(packet)
                self.files.append((member.name, data))
        self.truth = pq.read_table(folder / "truth.parquet").to_pandas()
        self.plan = plan_night(survey, NIGHT[survey], alerts, SEED)

    def of(self, *classes: str):
        """Rows of the truth and packets of some classes."""
        rows = np.flatnonzero(self.truth["class"].isin(classes))
        return self.truth.iloc[rows], [self.packets[row] for row in rows]

    def catalog(self, name: str):
        return pq.read_table(self.folder / "catalogs" / f"{name}.parquet").to_pandas()


@pytest.fixture(scope="module")
def ztf(tmp_path_factory):
    return Simulation("ztf", tmp_path_factory.mktemp("ztf"), 1000)


@pytest.fixture(scope="module")
def lsst(tmp_path_factory):
    return Simulation("lsst", tmp_path_factory.mktemp("lsst"), 400)


@pytest.fixture(params=["ztf", "lsst"])
def night(request):
    return request.getfixturevalue(request.param)


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------------------------ packets
def test_every_packet_is_valid_and_named_by_its_id(night):
    schema = known_schemas(night.survey)[VERSIONS[night.survey][0]]
    assert len(night.packets) == night.done.alerts == len(night.truth)
    assert [json.loads(text) for text in night.schemas] == [schema]
    parsed = fastavro.parse_schema(schema)
    key = "candid" if night.survey == "ztf" else "diaSourceId"
    ids = [packet[key] for packet in night.packets]
    assert len(set(ids)) == len(ids)
    assert [name for name, _ in night.files] == [f"{number}.avro" for number in ids]
    assert night.truth["alert_id"].tolist() == ids
    for packet in night.packets[::37]:
        assert fastavro.validate(packet, parsed, strict=True)


def test_apaches_decoder_reads_the_same(night):
    for row in range(0, len(night.packets), 61):
        reader = avro.datafile.DataFileReader(io.BytesIO(night.files[row][1]), avro.io.DatumReader())
        (packet,) = list(reader)
        assert repr(packet) == repr(night.packets[row])


def test_surveys_accept_every_alert_into_the_night(night):
    survey = SURVEYS[night.survey]
    superset = survey.superset
    columns = [field for field in superset if field.name not in survey.cutout_columns]
    raw = pa.Table.from_pylist(night.packets, schema=pa.schema(columns))
    raw = raw.append_column("schema_version", pa.array([VERSIONS[night.survey][0]] * raw.num_rows))
    raw = raw.append_column("alert_id", pa.array(night.truth["alert_id"]))
    raw = raw.append_column("origin_added", pa.nulls(raw.num_rows, pa.string()))
    assert survey.faults(raw).null_count == raw.num_rows
    alerts = survey.normalise(raw)
    assert alerts.num_rows == len(night.packets)
    assert set(survey.night_of(alerts).tolist()) == {NIGHT[night.survey]}
    assert np.allclose(alerts["mjd"].to_numpy(), night.truth["mjd"], atol=1e-8)
    known = (night.truth["class"] == "asteroid_known").to_numpy()
    assert np.array_equal(alerts["is_solar_system"].to_numpy(), known)
    flux, error = alerts["flux_njy"].to_numpy(), alerts["flux_err_njy"].to_numpy()
    pull = (flux - night.truth["true_flux_njy"]) / error
    strong = np.abs(night.truth["true_flux_njy"] / error) > 9  # away from the threshold nothing is selected
    assert kstest(pull[strong], "norm").pvalue > 1e-3
    keys = alerts["object_key"].to_pylist()
    pairs = {(key, int(true)) for key, true in zip(keys, night.truth["true_object"], strict=True) if "ss" not in key}
    stays = ~known & ~night.truth["class"].isin(["asteroid_known"])
    assert (
        len({key for key, keep in zip(keys, stays, strict=True) if keep}) == night.truth["true_object"][stays].nunique()
    )
    assert len(pairs) >= stays.sum() * 0.4


def test_dump_is_in_exposure_order(night):
    assert np.all(np.diff(night.truth["mjd"]) >= 0)


# ------------------------------------------------------------------------------------------------ determinism
def test_same_arguments_same_bytes_whatever_the_batch(tmp_path):
    for name, batch in (("a", 512), ("b", 37)):
        simulate(20240115, "ztf", 200, 3, tmp_path / name, batch=batch)
        simulate(20260309, "lsst", 200, 3, tmp_path / name, batch=batch)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")
    simulate(20240115, "ztf", 200, 4, tmp_path / "c")
    assert _digest(tmp_path / "c") != _digest(tmp_path / "a")


def test_without_cutouts_all_else_is_equal(ztf, tmp_path):
    other = Simulation("ztf", tmp_path, 1000, cutouts=False)
    cutouts = {"cutoutScience", "cutoutTemplate", "cutoutDifference"}
    for row in (0, 500, 999):
        assert all(other.packets[row][name] is None for name in cutouts)
        assert {k: v for k, v in other.packets[row].items() if k not in cutouts} == {
            k: v for k, v in ztf.packets[row].items() if k not in cutouts
        }
    assert other.done.bytes < 0.55 * ztf.done.bytes


@pytest.mark.parametrize(("survey", "version"), [("ztf", "3.3"), ("ztf", "4.01"), ("lsst", "11.0")])
def test_other_schema_versions(tmp_path, survey, version):
    made = Simulation(survey, tmp_path, 200, schema_version=version)
    parsed = fastavro.parse_schema(known_schemas(survey)[version])
    assert all(fastavro.validate(packet, parsed, strict=True) for packet in made.packets[::9])
    if survey == "ztf":
        assert {packet["schemavsn"] for packet in made.packets} == {version}
        assert ("fp_hists" in made.packets[0]) == (version != "3.3")


# ------------------------------------------------------------------------------------------------ classes
def test_every_class_is_there_and_the_number_is_exact(night):
    counts = night.truth["class"].value_counts().to_dict()
    assert set(counts) == {kind.name for kind in CLASSES}
    assert counts == night.done.classes
    if night.survey == "ztf":
        lacking = {kind.name: counts[kind.name] for kind in CLASSES if counts[kind.name] < kind.floor}
        assert set(lacking) <= {"asteroid_interstellar"}


def test_targets_sum_to_the_number_and_follow_weights():
    for number in (144, 999, 1000, 123_457):
        assert sum(targets(number).values()) == number
    counts = targets(10_000, {"sn_ia": 1.0, "agn": 3.0})
    assert counts["agn"] > 2 * counts["sn_ia"] > 40 * counts["tde"]


def test_no_two_alerts_share_stamps_or_light_curves(ztf):
    stamps = [packet[name]["stampData"] for packet in ztf.packets for name in packet if name.startswith("cutout")]
    assert len(set(stamps)) == len(stamps) == 3 * len(ztf.packets)
    curves = [
        (*(point["forcediffimflux"] for point in packet["fp_hists"]), packet["candidate"]["magpsf"])
        for packet in ztf.packets
    ]
    assert len(set(curves)) == len(curves)


# ------------------------------------------------------------------------------------------------ photometry
def test_forced_photometry_scatters_about_the_truth(ztf):
    m = measure(ztf.plan, np.arange(1000))
    history = m.history_of(30.0)
    pull = (m.point_forced[history.point] - m.point_true[history.point]) / m.point_error[history.point]
    assert kstest(pull, "norm").pvalue > 1e-3
    for row in range(0, 1000, 97):
        points = history.point[history.offsets[row] : history.offsets[row + 1]][::-1]
        packet = ztf.packets[row]["fp_hists"]
        assert len(packet) == points.size
        good = np.array([point["procstatus"] == "0" for point in packet])
        flux = np.array([point["forcediffimflux"] * 10 ** (0.4 * (31.4 - point["magzpsci"])) for point in packet])
        assert np.allclose(flux[good], m.point_forced[points][good], rtol=1e-5, atol=1e-2)
        assert np.all(np.array([point["forcediffimflux"] for point in packet])[~good] == -99999.0)
        assert all(-30.0 <= point["jd"] - ztf.packets[row]["candidate"]["jd"] < 0 for point in packet)


def test_detections_agree_with_forced_photometry_and_limits_with_both(ztf):
    found, missed = 0, 0
    for packet in ztf.packets:
        forced = {point["pid"]: point for point in packet["fp_hists"]}
        for point in packet["prv_candidates"]:
            twin = forced[point["pid"]]
            error = twin["forcediffimfluxunc"]
            if error < 0:
                continue
            limit = 10 ** (0.4 * (point["magzpsci"] - point["diffmaglim"]))
            assert error >= 0.999 * limit / 5
            if point["magpsf"] is None:
                missed += 1
                assert point["candid"] is None and point["isdiffpos"] is None and point["ra"] is None
                assert abs(twin["forcediffimflux"]) < 7 * error
                continue
            found += 1
            flux = 10 ** (0.4 * (point["magzpsci"] - point["magpsf"])) * (1 if point["isdiffpos"] == "t" else -1)
            assert abs(flux - twin["forcediffimflux"]) < 2 * error
            assert point["sigmapsf"] < 1.0857 / 4.999
    assert found > 1500 and missed > 3000


def test_triggers_are_detections_above_five_sigma(ztf):
    sigma = np.array([packet["candidate"]["sigmapsf"] for packet in ztf.packets])
    assert np.all(1.0857 / sigma > 4.999)
    for packet in ztf.packets:
        candidate = packet["candidate"]
        assert candidate["ndethist"] >= 1 and candidate["ncovhist"] >= candidate["ndethist"]
        assert candidate["jdstarthist"] <= candidate["jd"] == candidate["jdendhist"]
        assert candidate["nid"] == int(candidate["jd"] - 2457754.5)


def test_rubin_forced_photometry_holds_the_trigger_visit(lsst):
    stays = [packet for packet in lsst.packets if packet["diaObject"] is not None]
    for packet in stays:
        source = packet["diaSource"]
        forced = [point for point in packet["prvDiaForcedSources"] if point["visit"] == source["visit"]]
        assert len(forced) == 1
        assert abs(forced[0]["psfFlux"] - source["psfFlux"]) < 2 * source["psfFluxErr"]
        assert packet["diaObject"]["nDiaSources"] == 1 + len(packet["prvDiaSources"] or [])
        values = [p["psfFlux"] for p in [*(packet["prvDiaSources"] or []), source] if p["band"] == source["band"]]
        assert packet["diaObject"][f"{source['band']}_psfFluxMax"] == pytest.approx(max(values), rel=1e-6)
        assert packet["diaObject"][f"{source['band']}_psfFluxNdata"] == len(values)
    assert len(stays) > 200


def test_known_bodies_of_rubin_have_their_orbit(lsst):
    truth, packets = lsst.of("asteroid_known")
    for (_, row), packet in zip(truth.iterrows(), packets, strict=True):
        assert packet["diaObject"] is None and packet["diaSource"]["diaObjectId"] == 0
        assert packet["ssSource"]["ssObjectId"] == packet["diaSource"]["ssObjectId"] > 2**53
        assert packet["ssSource"]["ephOffset"] < 0.5
        assert packet["mpc_orbits"]["a"] == row["orbit_a_au"]
    others = [packet for packet in lsst.packets if packet["ssSource"] is None]
    assert len(others) == len(lsst.packets) - len(packets)
    assert all(packet["mpc_orbits"] is None and packet["diaSource"]["ssObjectId"] == 0 for packet in others)


# ------------------------------------------------------------------------------------------------ associations
def test_a_second_alert_of_the_night_holds_the_first(night):
    times = night.truth.groupby("true_object")["mjd"].transform("count")
    pairs = night.truth[times == 2].groupby("true_object").indices
    assert len(pairs) > 20
    for first, second in pairs.values():
        rows = night.truth.index[times == 2]
        before, after = night.packets[rows[first]], night.packets[rows[second]]
        if night.survey == "ztf":
            assert before["objectId"] == after["objectId"]
            (point,) = [p for p in after["prv_candidates"] if p["candid"] == before["candid"]]
            assert all(point[name] == before["candidate"][name] for name in ("ra", "magpsf", "sigmapsf", "pid", "rb"))
        else:
            assert before["diaSource"]["diaObjectId"] == after["diaSource"]["diaObjectId"] > 2**53
            (point,) = [p for p in after["prvDiaSources"] if p["diaSourceId"] == before["diaSourceId"]]
            assert point == before["diaSource"]


def test_sentinels_and_neighbours_fit_the_class(ztf):
    for (_, row), packet in zip(ztf.truth.iterrows(), ztf.packets, strict=True):
        candidate = packet["candidate"]
        if row["class"] == "asteroid_known":
            assert candidate["ssnamenr"] == row["body_name"] and 0 <= candidate["ssdistnr"] < 5
        else:
            assert candidate["ssnamenr"] == "null" and candidate["ssdistnr"] == candidate["ssmagnr"] == -999.0
        if row["class"] in ("rr_lyrae", "eclipsing_binary", "microlensing"):
            assert candidate["distpsnr1"] < 1 and candidate["sgscore1"] > 0.8 and candidate["distnr"] < 1.5
        if row["class"] in ("asteroid_unknown", "satellite_glint", "asteroid_interstellar"):
            assert candidate["ndethist"] == 1 and candidate["distnr"] > 1.0
        if row["class"] == "bogus":
            assert candidate["rb"] < 0.55 and candidate["drb"] < 0.5
        else:
            assert candidate["rb"] > 0.5 and candidate["drb"] > 0.5


def _nearest(ra, dec, cat_ra, cat_dec):
    separation = separation_arcsec(np.array([ra]), np.array([dec]), np.asarray(cat_ra), np.asarray(cat_dec))
    return int(np.argmin(separation)), float(separation.min())


def test_catalogs_hold_what_alerts(night):
    galaxies = night.catalog("sim_galaxies")
    truth, _ = night.of("sn_ia", "sn_core_collapse", "slsn", "pisn", "kilonova", "tde")
    for _, row in truth.iterrows():
        host = galaxies[galaxies["name"] == row["host_name"]].iloc[0]
        assert host["z"] == row["z"] and host["lum_dist_mpc"] == pytest.approx(row["lum_dist_mpc"], rel=1e-4)
        _, apart = _nearest(row["ra"], row["dec"], [host["ra"]], [host["dec"]])
        assert apart == pytest.approx(row["host_separation_arcsec"], abs=0.02)
    for name, classes in (("sim_variables", ["rr_lyrae", "eclipsing_binary"]), ("sim_agn", ["agn"])):
        catalog = night.catalog(name)
        truth, _ = night.of(*classes)
        found = [_nearest(row["ra"], row["dec"], catalog["ra"], catalog["dec"]) for _, row in truth.iterrows()]
        near = np.array([apart < 0.01 for _, apart in found])
        assert 0.6 < near.mean() < 0.95
        if name == "sim_variables":
            periods = catalog["period_day"].to_numpy()[[index for index, _ in found]]
            assert np.array_equal(periods[near], truth["period_days"].to_numpy()[near])
        assert catalog["name"].is_unique
    infrared = night.catalog("sim_variables")
    assert infrared[infrared["type"] == "YSO"]["w1_w2_mag"].min() > 0.7


# ------------------------------------------------------------------------------------------------ movers
def _position(packet):
    record = packet.get("candidate") or packet["diaSource"]
    return record["ra"], record["dec"]


def test_streaks_lie_on_great_circles(night):
    truth, packets = night.of("satellite_glint")
    for streak in truth["streak_id"].unique():
        here = [packet for packet, number in zip(packets, truth["streak_id"], strict=True) if number == streak]
        assert truth[truth["streak_id"] == streak]["mjd"].nunique() == 1
        if len(here) < 4:
            continue
        vectors = unit_vector(*np.array([_position(packet) for packet in here]).T)
        pole = np.linalg.svd(vectors)[2][-1]
        assert np.degrees(np.arcsin(np.abs(vectors @ pole))).max() * 3600 < 1.0
    assert truth["streak_id"].nunique() >= 1


def test_asteroids_move_on_their_orbits(night):
    truth, packets = night.of("asteroid_known", "asteroid_unknown", "asteroid_interstellar")
    site = {"ztf": (-116.863, 33.3563, 1712), "lsst": (-70.7494, -30.2446, 2663)}[night.survey]
    place = EarthLocation.from_geodetic(site[0] * u.deg, site[1] * u.deg, site[2] * u.m)
    pairs = [(row, packet) for (_, row), packet in zip(truth.iterrows(), packets, strict=True)]
    for row, packet in [*pairs[::5], *(pair for pair in pairs if pair[0]["class"] == "asteroid_interstellar")]:
        when = Time(row["mjd"], format="mjd", scale="tai")
        earth, _ = get_body_barycentric_posvel("earth", when, ephemeris="builtin")
        sun, _ = get_body_barycentric_posvel("sun", when, ephemeris="builtin")
        observer = (earth - sun + place.get_gcrs_posvel(when)[0]).xyz.to_value("au")
        light = 0.0
        for _ in range(4):
            body = _kepler(row, row["mjd"] - light)
            line = body - observer
            light = np.linalg.norm(line) / 173.1446326846693
        ra, dec = np.degrees(np.arctan2(line[1], line[0])) % 360, np.degrees(np.arcsin(line[2] / np.linalg.norm(line)))
        assert _nearest(ra, dec, [row["ra"]], [row["dec"]])[1] < 1.0
        assert _nearest(row["ra"], row["dec"], *([value] for value in _position(packet)))[1] < 1.2
    interstellar = truth[truth["class"] == "asteroid_interstellar"]
    assert interstellar["orbit_e"].min() > 1.05 and interstellar["orbit_a_au"].max() < 0


def _kepler(row, mjd):
    """Heliocentric equatorial position from elements, by Kepler's equation."""
    a, e = row["orbit_a_au"], row["orbit_e"]
    motion = 0.01720209895 / abs(a) ** 1.5
    mean = np.radians(row["orbit_mean_anomaly_deg"]) + motion * (mjd - row["orbit_epoch_mjd"])
    if e < 1:
        x = newton(lambda x: x - e * np.sin(x) - mean, mean, tol=1e-13)
        plane = a * np.array([np.cos(x) - e, np.sqrt(1 - e * e) * np.sin(x), 0.0])
    else:
        x = newton(lambda x: e * np.sinh(x) - x - mean, np.arcsinh(mean / e), tol=1e-13)
        plane = a * np.array([np.cosh(x) - e, -np.sqrt(e * e - 1) * np.sinh(x), 0.0])
    i, node, peri = (np.radians(row[f"orbit_{name}_deg"]) for name in ("i", "node", "argperi"))

    def turn_z(t):
        return np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])

    def turn_x(t):
        return np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]])

    return turn_x(np.radians(23.4392911)) @ turn_z(node) @ turn_x(i) @ turn_z(peri) @ plane


# ------------------------------------------------------------------------------------------------ the merger
def test_the_kilonova_lies_in_the_sky_map_at_its_distance(night):
    with fits.open(night.done.skymap) as hdus:
        table, header = hdus[1].data, hdus[1].header
        uniq, density = np.array(table["UNIQ"], np.int64), np.array(table["PROBDENSITY"], float)
        mu, sigma, norm = (np.array(table[name], float) for name in ("DISTMU", "DISTSIGMA", "DISTNORM"))
    assert header["ORDERING"] == "NUNIQ" and header["COORDSYS"] == "C" and header["PIXTYPE"] == "HEALPIX"
    order = (np.log2(uniq // 4) / 2).astype(int)
    area = np.pi / 3 / 4.0**order
    assert area.sum() == pytest.approx(4 * np.pi) and np.sum(density * area) == pytest.approx(1.0)
    truth, _ = night.of("kilonova")
    row = truth[truth["event_name"] == night.done.event].iloc[0]
    cell = [4 * 4**k + healpy.ang2pix(2**k, row["ra"], row["dec"], nest=True, lonlat=True) for k in order]
    (here,) = np.flatnonzero(uniq == np.array(cell))
    assert np.sum((density * area)[density >= density[here]]) < 0.9
    assert abs(row["lum_dist_mpc"] - mu[here]) < 2 * sigma[here]
    r = np.linspace(0, 4 * mu[here], 100_000)
    posterior = (
        norm[here] * r**2 * np.exp(-0.5 * ((r - mu[here]) / sigma[here]) ** 2) / sigma[here] / np.sqrt(2 * np.pi)
    )
    assert np.trapezoid(posterior, r) == pytest.approx(1.0, rel=1e-3)
    event = Time(header["DATE-OBS"], scale="utc")
    assert event.mjd == pytest.approx(header["MJD-OBS"], abs=1e-8)
    assert 2 / 24 < night.truth["mjd"].min() - event.tai.mjd < 8 / 24
    assert row["explosion_mjd"] == pytest.approx(event.tai.mjd, abs=1e-7)


def test_project_readers_open_the_sky_map(ztf):
    mocpy = pytest.importorskip("mocpy")
    region = mocpy.MOC.from_multiordermap_fits_file(ztf.done.skymap, cumul_to=0.9)
    truth, _ = ztf.of("kilonova")
    row = truth[truth["event_name"] == ztf.done.event].iloc[0]
    assert region.contains_lonlat(row["ra"] * u.deg, row["dec"] * u.deg).all()


# ------------------------------------------------------------------------------------------------ stamps
def test_stamps_are_fits_and_hold_the_flux(ztf):
    rows = np.flatnonzero((ztf.truth["class"] != "bogus").to_numpy())[::2]
    scene = image_scene(ztf.plan, measure(ztf.plan, rows), *_depth(ztf.plan, rows))
    pull, science_noise = [], []
    for i, row in enumerate(rows):
        packet = ztf.packets[row]
        images = []
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            assert packet[name]["fileName"].startswith(f"candid{packet['candid']}_")
            with fits.open(io.BytesIO(gzip.decompress(packet[name]["stampData"]))) as hdus:
                assert hdus[0].data.shape == (63, 63) and hdus[0].data.dtype == np.dtype(">f4")
                images.append(hdus[0].data.astype(float))
        candidate = packet["candidate"]
        flux = 10 ** (0.4 * (candidate["magzpsci"] - candidate["magpsf"])) * (
            1 if candidate["isdiffpos"] == "t" else -1
        )
        s, noise = scene["seeing_px"][i], scene["noise"][i]
        x, y = np.arange(63) - 31 - scene["centre_x"][i], np.arange(63) - 31 - scene["centre_y"][i]
        psf = np.exp(-0.5 * (x[None, :] ** 2 + y[:, None] ** 2) / s**2) / (2 * np.pi * s**2)
        measured = np.sum(images[2] * psf) / np.sum(psf**2)
        sigma = noise / np.sqrt(np.sum(psf**2))
        limit = 10 ** (0.4 * (candidate["magzpsci"] - candidate["diffmaglim"]))
        assert sigma == pytest.approx(limit / 5, rel=0.02)  # the limit is five sigma of the stamp's own noise
        pull.append((measured - flux) / sigma)
        science_noise.append(np.median(np.abs(images[2] - np.median(images[2]))) * 1.4826 / noise)
    pull = np.array(pull)
    assert np.median(np.abs(pull)) == pytest.approx(0.6745, abs=0.12)  # robust: bright neighbours leave residuals
    assert abs(np.median(pull)) < 0.25
    assert np.median(science_noise) == pytest.approx(1.0, abs=0.03)


def _depth(plan, rows):
    m = measure(plan, rows)
    return plan.visits.limit_mag[m.visit] + m.objects.limit_shift, zero_points(plan, m.visit, m.detector)


def test_rubin_stamps_are_plain_fits(lsst):
    for packet in lsst.packets[::29]:
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            with fits.open(io.BytesIO(packet[name])) as hdus:
                assert hdus[0].data.shape == (31, 31) and hdus[0].header["BUNIT"] == "nJy"
                assert np.isfinite(hdus[0].data).all()


# ------------------------------------------------------------------------------------------------ populations
def test_supernova_peaks_are_where_they_belong():
    plan = plan_night("ztf", 20240115, 3000, 1, {"sn_ia": 2.0, "sn_core_collapse": 1.0, "slsn": 1.0, "tde": 1.0})
    names = np.array([kind.name for kind in CLASSES])[plan.objects.code]
    expected = {"sn_ia": (-19.25, 0.35), "sn_core_collapse": (-17.2, 1.0), "slsn": (-21.5, 0.8), "tde": (-20.3, 1.2)}
    for name, (mag, width) in expected.items():
        peaks = plan.objects.peak_abs_mag[names == name]
        assert peaks.size > 100
        assert np.median(peaks) == pytest.approx(mag, abs=0.35)
        assert peaks.std() < width


# ------------------------------------------------------------------------------------------------ command
def test_command_line(tmp_path):
    run = CliRunner().invoke(
        command, ["20240115", "--alerts", "150", "--no-cutouts", "--seed", "2", "--out", str(tmp_path), "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.output)
    assert found["alerts"] == 150 and Path(found["dump"]).name == "ztf_public_20240115.tar"
    assert pc.sum(pq.read_table(found["truth"])["is_bogus"]).as_py() == found["classes"]["bogus"]
    assert "Example" in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"survey": "atlas"}, "cannot be simulated"),
        ({"alerts": 10}, "every class"),
        ({"night": 20240231}, "night"),
        ({"schema_version": "1.8"}, "1.8"),
        ({"weights": {"quasar": 1.0}}, "no such class"),
    ],
)
def test_bad_arguments_are_one_clear_line_and_nothing_written(tmp_path, change, message):
    arguments = {"night": 20240115, "survey": "ztf", "alerts": 200, "seed": 1, "out": tmp_path / "new"} | change
    with pytest.raises(InputError, match=message):
        simulate(**arguments)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        simulate(20240115, "ztf", 150, 1, tmp_path / "file", cutouts=False)
