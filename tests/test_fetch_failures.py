"""Services that are dead, slow, busy or lie: asked again, then told clearly; never a value in a column."""

from __future__ import annotations

import datetime
import email.utils
import logging
import os
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from services import documents
from services.server import CatalogServer
from test_fetch import ALERTS, KINDS, SKY, TODAY, declare, hasty, run

from pipeline import healpix
from pipeline.catalogs import open_catalog
from pipeline.catalogs.fetch import Politeness, fetch, transients
from pipeline.catalogs.fetch.answers import is_round, is_same_unit, read_answer
from pipeline.catalogs.fetch.cells import discs_of, wanted_cells
from pipeline.catalogs.fetch.service import check_service
from pipeline.catalogs.fetch.session import AnswerError, Session
from pipeline.cli import main
from pipeline.errors import InputError, ServiceError
from pipeline.xmatch import CatalogColumn, CatalogDeclaration

FEW = ALERTS[2][:6]
BOT = {"TNS_BOT_ID": "4711", "TNS_BOT_NAME": "a bot", "TNS_API_KEY": "the-right-key"}

LIES = {
    "dead": "no whole answer",
    "500": "HTTP 500",
    "503": "HTTP 503 Service Unavailable: Service is busy",
    "429": "HTTP 429",
    "html": "a web page: 'We will be back soon.'",
    "error": "the service reports ERROR: out of memory",
    "nothing": "no VOTable",
    "half": "no whole VOTable",
    "cut off": "no whole answer",
    "fewer columns": "lacks column",
    "other columns": "lacks column",
    "outside": "rows lie outside the sky",
    "other units": "column mag is in Jy, declared in mag",
    "radians": "column ra is in rad, declared in deg",
    "empty row": "row without position",
    "wrong disc": "numbers positions that were not asked for",
    "words": "column mag holds what is no float",
    "twice": "1 rows twice",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_tried_again_then_told_and_leaves_no_catalog(kind: str, tmp_path: Path) -> None:
    for behaviour, said in LIES.items():
        folder = tmp_path / behaviour
        with CatalogServer(SKY, (behaviour,)) as server:
            with pytest.raises(ServiceError, match=r"what was answered is kept") as caught:
                run(server, kind, folder, healpix_29=FEW, politeness=hasty(tries=2))
            assert len(server.requests) == 2, behaviour
        assert said in str(caught.value) and f"{kind} service 127.0.0.1, catalog stars" in str(caught.value), behaviour
        assert "\n" not in str(caught.value) and "(2 times)" in str(caught.value)
        assert not list(folder.rglob("*.parquet")) and not (folder / "stars").exists(), behaviour


@pytest.fixture(scope="module")
def digest_of_few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the catalog around a few alerts, from a service that is well."""
    with CatalogServer(SKY) as server:
        return str(run(server, "tap", tmp_path_factory.mktemp("well"), healpix_29=FEW).digest)


@pytest.mark.parametrize("behaviour", [*LIES, "slow", "drip"])
def test_a_service_that_gets_well_again_is_used(behaviour: str, digest_of_few: str, tmp_path: Path) -> None:
    timeout = 0.4 if behaviour in ("slow", "drip") else 20.0
    with CatalogServer(SKY, (behaviour, "well")) as server:
        server.retry_after = ""
        polite = hasty()
        done = run(server, "tap", tmp_path / "ill", healpix_29=FEW, politeness=polite, timeout_sec=timeout)
        assert done.retries == 1 and len(server.requests) == 2 and polite.waits == [2.0]
    assert done.digest == digest_of_few


def test_bad_requests_and_traps_are_not_repeated(tmp_path: Path) -> None:
    for behaviour, said in {"400": "HTTP 400", "404": "HTTP 404", "bomb": "document type or entities"}.items():
        with CatalogServer(SKY, (behaviour,)) as server:
            with pytest.raises(ServiceError, match=said) as caught:
                run(server, "vizier", tmp_path, healpix_29=FEW)
            assert len(server.requests) == 1 and "look at [service]" in str(caught.value)


def test_waits_double_up_to_a_bound_and_what_the_service_asks_for_is_heeded(tmp_path: Path) -> None:
    polite = hasty(tries=7, longest_wait_sec=20.0)
    with CatalogServer(SKY, ("500",)) as server, pytest.raises(ServiceError, match="7 times"):
        run(server, "tap", tmp_path, healpix_29=FEW, politeness=polite)
    assert polite.waits == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    for asked, wait in {"33": 33.0, "0": 2.0, "rubbish": 2.0, "-5": 2.0}.items():
        polite = hasty(tries=2)
        with CatalogServer(SKY, ("429",)) as server, pytest.raises(ServiceError):
            server.retry_after = asked
            run(server, "tap", tmp_path, healpix_29=FEW, politeness=polite)
        assert polite.waits == [wait], asked
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=120)
    polite = hasty(tries=2)
    with CatalogServer(SKY, ("503",)) as server, pytest.raises(ServiceError):
        server.retry_after = email.utils.format_datetime(moment, usegmt=True)
        run(server, "tap", tmp_path, healpix_29=FEW, politeness=polite)
    assert polite.waits == [pytest.approx(120, abs=20)]
    polite = hasty()
    with CatalogServer(SKY, ("503",)) as server, pytest.raises(ServiceError, match="again in 120 minutes"):
        server.retry_after = "7200"
        run(server, "tap", tmp_path, healpix_29=FEW, politeness=polite)
    assert polite.waits == []


def test_requests_come_one_at_a_time_with_a_pause_between(tmp_path: Path) -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    polite = Politeness(pause_sec=3.0, clock=lambda: now[0], sleep=sleep)
    with CatalogServer(SKY, ("well", "500", "well")) as server:
        run(server, "tap", tmp_path, healpix_29=ALERTS[2][:30], chunk=10, politeness=polite)
    # After the failure: the back-off of 2 sec, then what is left of the pause.
    assert waits[:3] == [3.0, 2.0, 1.0] and set(waits[3:]) == {3.0} and len(waits) == len(server.requests)


def test_a_slow_service_is_given_up_after_the_time_allowed(tmp_path: Path) -> None:
    for behaviour in ("slow", "drip"):
        with CatalogServer(SKY, (behaviour,)) as server, pytest.raises(ServiceError, match=r"within 0.3 sec"):
            run(server, "gaia", tmp_path, healpix_29=FEW, timeout_sec=0.3, politeness=hasty(tries=2))
    with CatalogServer(SKY) as server, pytest.raises(InputError, match="timeout of -1 sec"):
        run(server, "gaia", tmp_path, timeout_sec=-1.0)


def test_what_a_service_asks_us_to_wait_may_be_any_text(tmp_path: Path) -> None:
    for asked in ("\N{SUPERSCRIPT TWO}", "soon", "-5", "1e3", "Wed, 99 Foo 2026"):
        with CatalogServer(SKY, ("503", "well")) as server:
            server.retry_after = asked
            assert run(server, "gaia", tmp_path / repr(asked).strip("'"), healpix_29=FEW).retries == 1
    with CatalogServer(SKY, ("503",)) as server, pytest.raises(ServiceError, match="again in 16666667 minutes"):
        server.retry_after = "9" * 400
        run(server, "gaia", tmp_path / "never", healpix_29=FEW)


def test_an_answer_beyond_all_bounds_is_not_taken_in() -> None:
    with CatalogServer(SKY) as server:
        session = Session(5.0, max_bytes=500)
        request = {"data": {"REQUEST": "doQuery", "LANG": "ADQL", "MAXREC": "9", "QUERY": QUERY}}
        with pytest.raises(AnswerError, match="larger than 0 MB"):
            session.exchange(lambda: session.post(server.url("tap") + "/sync", **request))
        session.close()


QUERY = "SELECT TOP 9 c.ra, c.dec FROM t AS c WHERE (1=CONTAINS(POINT(c), CIRCLE('ICRS', 150.1, 2.2, 1.0)))"


def test_the_whole_is_right_in_spite_of_everything(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        well = run(server, "simbad", tmp_path / "well", chunk=10)
    ill = ("dead", "503", "well", "html", "half", "well", "error", "cut off", "429", "outside", "well")
    with CatalogServer(SKY, ill, cap=120) as server:
        assert run(server, "simbad", tmp_path / "ill", chunk=10).digest == well.digest


def test_twins_that_a_catalog_really_has_can_be_merged(digest_of_few: str, tmp_path: Path) -> None:
    with CatalogServer(SKY, ("twice",)) as server:
        merged = run(server, "tap", tmp_path, declare("tap", service={"duplicates": "merge"}), healpix_29=FEW)
    assert merged.digest == digest_of_few


def test_round_numbers_of_rows_are_not_trusted() -> None:
    assert [n for n in range(1200) if is_round(n)] == [50, 100, 200, 300, 500, 1000]
    assert is_round(2000) and is_round(10_000) and not is_round(2001)


def test_one_unit_has_many_spellings() -> None:
    for one, other in [
        ("mas.yr-1", "mas/yr"),
        ("mas.yr**-1", "mas/yr"),
        ("solMass", "Msun"),
        ("10+10Msun", "1e10 Msun"),
    ]:
        assert is_same_unit(vounit(one), other), one
    for one, other in [("mas", "arcsec"), ("Jy", "mag"), ("kpc", "Mpc"), ("[solMass]", "Msun"), ("10+10Msun", "Msun")]:
        assert not is_same_unit(vounit(one), other), one


def vounit(text: str) -> str:
    """A unit as it comes out of a VOTable."""
    from astropy.io import votable

    table = documents.tap(Table({"a": [1.0]}), False, "tabledata").replace(
        b'name="a"', f'name="a" unit="{text}"'.encode()
    )
    return str(next(votable.parse(BytesIO(table), verify="ignore").iter_tables()).fields[0].unit)


def test_recorded_answers_of_the_services_are_read() -> None:
    """VOTables that astroquery ships as recorded: what they hold is no answer to us, and is told exactly."""
    import astroquery

    data = Path(astroquery.__file__).parent
    service = check_service(declare("vizier"))
    discs = discs_of(11, wanted_cells(11, FEW), 10.0)
    for name, said in {
        "vizier/tests/data/viz.xml": "tables instead of one",
        "vizier/tests/data/kang2010.xml": "lacks column ra",
        "gaia/tests/data/job_1.vot": "lacks column ra, dec, main_id",
        "simbad/tests/data/simbad_basic_columns.xml": "without a status",
    }.items():
        with pytest.raises(AnswerError, match=said):
            read_answer((data / name).read_bytes(), declare("vizier"), service, discs)


# ------------------------------------------------------------------------------------------------- TNS
def transients_declaration(**service: Any) -> CatalogDeclaration:
    return CatalogDeclaration(
        name="tns",
        doc="transients",
        source="TNS",
        licence="none",
        ra="ra",
        dec="declination",
        radius_arcsec=1.5,
        id="name",
        columns=(
            CatalogColumn("name", "string", "name"),
            CatalogColumn("type", "string", "type"),
            CatalogColumn("redshift", "float64", "redshift"),
            CatalogColumn("created", "string", "creationdate"),
        ),
        service={"kind": "tns", "pause_sec": 0.0, **service},
        snapshot=True,
    )


ROWS = [
    documents.tns_row(1001, "SN", "2025abc", 150.1, 2.2, "SN Ia", "0.05"),
    documents.tns_row(1002, "AT", "2025abd", 10.0, -10.0),
    documents.tns_row(1003, "AT", "2025abe", 359.9, 89.0),
]


def run_tns(server: CatalogServer, folder: Path, **given: Any) -> Any:
    given = {"environment": BOT, "politeness": hasty(tries=2), "today": TODAY, "timeout_sec": 20.0, **given}
    return fetch(transients_declaration(), np.empty(0, np.int64), folder, url=server.url("tns"), **given)


def test_the_list_of_transients_is_one_snapshot_of_the_whole_sky(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        server.tns = documents.tns(ROWS)
        done = run_tns(server, tmp_path)
        again = run_tns(server, tmp_path, environment={})
        (request,) = server.requests
    assert request.headers["user-agent"] == 'tns_marker{"tns_id":4711,"type":"bot","name":"a bot"}'
    assert done.rows == 3 and again.digest == done.digest and again.requests == 0
    catalog = open_catalog(done.path)
    assert np.array_equal(catalog.covered, healpix.ALL_SKY)
    rows = sorted(catalog.take(np.arange(3), ["name", "type", "redshift"]).to_pylist(), key=lambda row: row["name"])
    assert rows[0] == {"name": "2025abc", "type": "SN Ia", "redshift": 0.05}
    assert rows[1] == {"name": "2025abd", "type": None, "redshift": None}


def test_a_broken_list_of_transients_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(data: bytes, said: str, behaviour: str = "well") -> None:
        with CatalogServer(SKY, (behaviour,)) as server, pytest.raises(ServiceError, match=said):
            server.tns = data
            run_tns(server, tmp_path)

    good = documents.tns(ROWS)
    bad(good, "no whole zip file", "half a zip")
    bad(good, "no whole zip file: We will be back", "html")
    bad(good, "HTTP 307", "moved")
    bad(documents.tns(ROWS, files=2), "holds 2 files")
    bad(documents.tns([]), "the list is empty")
    header = ["kind" if name == "type" else name for name in documents.TNS_HEADER]
    bad(documents.tns(ROWS, header), "lacks column type")
    bad(documents.tns([["Service unavailable"]], ["message"]), "no column ra")
    bad(documents.tns([documents.tns_row(1, "AT", "x", "12:00:01", "+10:00:00")]), "column ra holds what is no double")
    bad(documents.tns([documents.tns_row(1, "AT", "x", 12.0, 100.0)]), "positions that are none")
    bad(documents.tns([ROWS[0], ROWS[1][:5]]), "cannot be read")
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", b"0" * 3_000_000)
    monkeypatch.setattr(transients, "MAX_PLAIN_BYTES", 1 << 20)
    bad(packed.getvalue(), "larger than 1 MB")
    assert not (tmp_path / "tns").exists()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "TNS_API_KEY is not set"),
        ({"TNS_API_KEY": "two words"}, "TNS_API_KEY holds no key"),
        ({"TNS_API_KEY_FILE": "/nowhere/key"}, "TNS_API_KEY_FILE names cannot be read"),
        ({"TNS_API_KEY": "x"}, "TNS_BOT_ID"),
        ({**BOT, "TNS_BOT_NAME": 'a"\r\nX: y'}, "TNS_BOT_NAME"),
    ],
)
def test_without_a_key_nothing_is_asked(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    with CatalogServer(SKY) as server:
        with pytest.raises(InputError, match=said) as caught:
            run_tns(server, tmp_path, environment=environment)
        assert server.requests == []
    assert "two words" not in str(caught.value) and "/nowhere" not in str(caught.value)


def test_a_key_stands_in_no_message_log_or_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    key = tmp_path / "key.txt"
    key.write_text("a-secret-of-mine\n")
    environment = {**BOT, "TNS_API_KEY": "", "TNS_API_KEY_FILE": str(key)}
    with CatalogServer(SKY) as server:
        server.key, server.tns = "a-secret-of-mine", documents.tns(ROWS)
        messages = []
        for script in (("error",), ("500",), ("dead",)):
            server.script = list(script)
            with pytest.raises(ServiceError) as caught:
                run_tns(server, tmp_path / "ill", environment=environment)
            messages += [str(caught.value), repr(caught.value), repr(caught.value.__context__)]
        server.script = ["well"]
        server.key = "another"  # the service repeats the key in its refusal
        with pytest.raises(ServiceError, match=r"api_key=\*\*\*|no whole zip file") as caught:
            run_tns(server, tmp_path / "ill", environment=environment)
        messages.append(str(caught.value))
        server.key = "a-secret-of-mine"
        run_tns(server, tmp_path / "kept", environment=environment)
        assert all(request.fields["api_key"] == "a-secret-of-mine" for request in server.requests)
    captured = capfd.readouterr()
    held = [*messages, caplog.text, captured.out, captured.err]
    held += [file.read_bytes().decode("latin-1") for file in (tmp_path / "kept").rglob("*") if file.is_file()]
    assert len(held) > 10 and not any("a-secret" in text for text in held)


# ------------------------------------------------------------------------------------------------- command line
DECLARATION = """
name = "stars"
doc = "stars"
source = "a service"
licence = "none"
ra = "ra"
dec = "dec"
radius_arcsec = 2.0
id = "name"
[service]
kind = "simbad"
pause_sec = 0.0
[[column]]
name = "name"
source = "main_id"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from synthetic_archive import write_archive

    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "data")
    (tmp_path / "stars.toml").write_text(DECLARATION)
    return tmp_path


def command(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["catalogs", "fetch", *arguments])
    captured = capfd.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_the_command_fetches_for_nights(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import pipeline

    held = pipeline.open("data").alerts("20181129:20181130", columns=["healpix_29"]).to_arrow()[0].to_numpy()
    nights = ["--for-nights", "20181129", "20181130", "--declarations", "stars.toml"]
    with CatalogServer(SKY) as server:
        code, out, err = command(capfd, "stars", *nights, "--url", server.url("simbad"), "--chunk", "50")
        assert (code, err) == (0, ""), err
        cells = len(wanted_cells(11, held))
        assert out.startswith(f"stars: {cells} cells asked, 0 known before; {-(-cells // 50)} requests\n")
        assert "snapshot 20" in out and out.count("\n") == 2
        code, out, _ = command(capfd, "stars", *nights, "--url", server.url("simbad"), "--json")
        assert code == 0 and f'"cells_known": {cells}' in out and '"requests": 0' in out
    assert healpix.in_ranges(open_catalog(place / "data/catalogs/stars").covered, held).all()


def test_the_command_tells_failures_by_its_exit_code(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nights = ["--for-nights", "20181129", "20181130"]
    mine = ["stars", "--declarations", "stars.toml"]
    with CatalogServer(SKY, ("400",)) as server:
        code, out, err = command(capfd, *mine, *nights, "--url", server.url("simbad"))
    assert (code, out) == (1, "") and err.startswith("alertmill: simbad service 127.0.0.1, catalog stars: HTTP 400")
    assert err.count("\n") == 1 and not (place / "data/catalogs/stars").exists()
    for arguments, said in [
        ([], "name one catalog, or give --all"),
        ([*mine, "--all"], "name one catalog, or give --all"),
        ([*mine], "no nights are named"),
        ([*mine, *nights, "--as-of", "yesterday"], "'yesterday' is no day"),
        ([*mine, *nights, "--as-of", "2999-01-01"], "has not come yet"),
        ([*mine, "--for-nights", "20200101", "20200102"], "no alert of nights"),
        ([*mine, "--for-nights", "20200102", "20200101"], "end (20200101) before they begin"),
        ([*mine, *nights, "--url", "nonsense"], "url is not an http"),
        ([*mine, *nights, "--chunk", "0"], "chunk 0 is not between"),
        ([*mine, *nights, "--timeout", "0", "--url", "http://127.0.0.1:9"], "timeout of 0 sec"),
        (["sim_agn", *nights], "declares no service"),
        (["nope", *nights], "no catalog nope is declared"),
    ]:
        code, out, err = command(capfd, *arguments)
        assert code == 2 and said in err and err.count("\n") == 1, (arguments, err)


def test_the_command_builds_a_partial_catalog_only_when_told_so(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["stars", "--declarations", "stars.toml", "--for-nights", "20181129", "20181130", "--chunk", "5"]
    with CatalogServer(SKY, ("well", "404")) as server:
        code, out, err = command(capfd, *arguments, "--url", server.url("simbad"), "--partial")
    assert code == 0 and "cells are not covered: simbad service" in err and "5 cells asked" in out


def test_all_fetches_every_catalog_with_a_service(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.catalogs import declarations

    (place / "shipped").mkdir()
    monkeypatch.setattr(declarations, "packaged_folder", lambda: place / "shipped")
    with CatalogServer(SKY) as server:
        for name, kind in (("one", "simbad"), ("two", "gaia")):
            text = DECLARATION.replace('"stars"', f'"{name}"').replace(
                '"simbad"', f'"{kind}"\nurl = "{server.url(kind)}"'
            )
            (place / "shipped" / f"{name}.toml").write_text(text)
        (place / "shipped/none.toml").write_text(DECLARATION.replace('"stars"', '"none"').split("id =")[0])
        code, out, err = command(capfd, "--all", "--for-nights", "20181129", "20181129", "--json")
    assert (code, err) == (0, "")
    assert out.count('"digest"') == 2
    assert sorted(path.name for path in (place / "data/catalogs").glob("[a-z]*")) == ["one", "two"]


def test_importing_the_clients_asks_nothing_and_prints_nothing(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import socket
def refuse(*_):
    raise AssertionError("the network was touched")
socket.socket.connect = refuse
import numpy as np
from pipeline.catalogs.fetch import requests, service, session, cells
disc = cells.Discs(np.array([1.0]), np.array([2.0]), 100.0)
base = dict(url="http://127.0.0.1:9/x", table="vizier:a", ra="ra", dec="dec", columns=(), order=11, margin_arcsec=1.0,
            chunk=1, maxrec=10, pause_sec=0.0)
for kind in ("xmatch", "vizier", "simbad", "tap", "gaia"):
    try:
        requests.request_discs(service.Service(kind=kind, **base), disc, session.Session(1.0))
    except session.AnswerError as error:
        assert "the network was touched" in str(error), error
    except AssertionError:
        pass
"""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_catalog_of_another_kind_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "stars").mkdir()
    with CatalogServer(SKY) as server, pytest.raises(InputError, match="is not a catalog"):
        run(server, "tap", tmp_path, healpix_29=FEW)


def test_no_alert_with_a_position_is_told(tmp_path: Path) -> None:
    with CatalogServer(SKY) as server, pytest.raises(InputError, match="no alert has a position"):
        run(server, "tap", tmp_path, healpix_29=[-1, -1])
    assert replace(declare("tap"), snapshot=True).snapshot
