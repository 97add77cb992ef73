"""The night report in a headless browser: no error, no request, the switch works, something is drawn."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as images
from two_nights import Written

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("interop")]

BROWSERS_OWN = {
    "accounts.google.com",
    "android.clients.google.com",
    "clients2.google.com",
    "content-autofill.googleapis.com",
    "optimizationguide-pa.googleapis.com",
    "redirector.gvt1.com",
    "safebrowsing.googleapis.com",
    "update.googleapis.com",
}
"""What a browser asks by itself, whatever page is open: time, updates, lists."""
VIEWS = ("mag", "flux", "luminosity")
PROBE = """<script>
window.addEventListener("load", function () {
  var found = {};
  %s.forEach(function (view) {
    document.querySelector("[data-all] button[data-view=" + view + "]").click();
    var figures = Array.from(document.querySelectorAll("figure.lc"));
    found[view] = figures.map(function (figure) {
      return [figure.dataset.view].concat(Array.from(figure.querySelectorAll(".view"))
        .filter(function (drawing) { return getComputedStyle(drawing).display !== "none"; })
        .map(function (drawing) { return drawing.className.replace("view", "").trim(); }));
    });
    found[view + "_pressed"] = document.querySelectorAll(".switch:not([data-all]) button[aria-pressed=true]").length;
  });
  var told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify(found);
  document.body.appendChild(told);
});
</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium here (`make interop` installs one where it may)")


@pytest.fixture
def page(written: Written) -> Path:
    return written.reports[max(written.nights, key=lambda night: written.nights[night])]


def visit(browser: str, page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    own = [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    command = [browser, *flags, *quiet, *own, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_it_loads_without_errors_or_requests(browser: str, page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    done = visit(browser, page, tmp_path, f"--log-net-log={log}", "--dump-dom")
    assert "</html>" in done.stdout
    assert re.findall(r":CONSOLE[:(].*", done.stderr) == []
    addresses = re.findall(r'"url":"((?:https?|wss?|ftp)://([^/"]+)[^"]*)"', log.read_text())
    assert {address for address, host in addresses if host not in BROWSERS_OWN} == set()


def test_the_switch_shows_one_quantity_at_a_time(browser: str, page: Path, tmp_path: Path) -> None:
    probed = tmp_path / "index.html"
    probed.write_text(page.read_text().replace("</body>", PROBE % json.dumps(VIEWS)))
    dom = visit(browser, probed, tmp_path, "--dump-dom").stdout
    told = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert told is not None
    found = json.loads(told[1])
    cards = len(found["mag"])
    assert cards == 10
    for view in VIEWS:
        assert [figure[0] for figure in found[view]] == [view] * cards
        assert all(figure[1:] in ([view], []) for figure in found[view]), view
        assert found[f"{view}_pressed"] == cards
    assert all(figure[1:] for view in ("mag", "flux") for figure in found[view])
    assert any(figure[1:] for figure in found["luminosity"])


def test_the_picture_is_not_blank(browser: str, page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    visit(browser, page, tmp_path, "--window-size=1200,3000", f"--screenshot={shot}")
    picture = images.imread(shot)[:, :, :3]
    assert picture.shape[:2] == (3000, 1200)
    rows = picture.reshape(-1, 1200 * 3)
    drawn = (np.abs(rows - rows[:, :1]) > 0.02).any(axis=1).mean()
    assert drawn > 0.3  # rows of pixels that hold more than their background
    assert len(np.unique((picture[::4, ::4] * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 50
