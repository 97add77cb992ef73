"""``alertmill catalogs fetch``."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option
from pipeline.errors import CatalogError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.catalogs.fetch import Fetched


@click.command()
@click.argument("name", required=False)
@click.option(
    "--for-nights", nargs=2, metavar="START STOP", help="The nights whose alerts are asked for, both included."
)
@click.option("--survey", metavar="NAME", help="Survey of the alerts. [default: the one in the archive]")
@click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@click.option("--folder", metavar="DIR", help="Folder of built catalogs. [default: ROOT/catalogs]")
@click.option("--declarations", multiple=True, metavar="PATH", help="Your own declarations: a file or a folder.")
@click.option("--all", "is_all", is_flag=True, help="Fetch every catalog that declares a service.")
@click.option("--chunk", type=int, metavar="N", help="Cells in one request. [default: by the service]")
@click.option("--as-of", "--snapshot-date", "as_of", metavar="DATE", help="Go on with the snapshot of that day.")
@click.option("--url", metavar="URL", help="Another address of the service: a mirror.")
@click.option(
    "--timeout", type=float, default=300.0, show_default=True, metavar="SEC", help="Longest wait for an answer."
)
@click.option("--partial", is_flag=True, help="If the service fails, build from the cells answered so far.")
@json_option
def fetch(
    name: str | None,
    for_nights: tuple[str, str] | None,
    survey: str | None,
    root: str | None,
    config_file: str | None,
    folder: str | None,
    declarations: tuple[str, ...],
    is_all: bool,
    chunk: int | None,
    as_of: str | None,
    url: str | None,
    timeout: float,
    partial: bool,
    as_json: bool,
) -> None:
    """Fetch catalog NAME from its service for the alerts of some nights, and build it.

    Only the cells of the sky that hold alerts are asked for, each once: cells answered before are not asked for again,
    and a fetch that was stopped goes on where it was. Cells without a source are kept as such. A position outside all
    these cells stays "not covered". A list of the whole sky (TNS) needs no nights.

    Exit code 1 if the service failed: no catalog is built then, unless --partial says so.

    \b
    Example:
      alertmill catalogs fetch simbad --for-nights 20240210 20240212 --root ./data
      alertmill catalogs fetch --all --for-nights 20240212 20240212
      TNS_API_KEY_FILE=key.txt alertmill catalogs fetch tns
    """
    import numpy as np

    from pipeline import catalogs, config
    from pipeline.catalogs.fetch import check_service
    from pipeline.catalogs.fetch import fetch as fetch_catalog

    if is_all == (name is not None):
        raise InputError("name one catalog, or give --all", mend="see `alertmill catalogs list`")
    if is_all and url:
        raise InputError("--url is the address of one service", mend="name its catalog instead of --all")
    settings, _ = config.load({"root": root, "catalog_folder": folder}, file=config_file)
    place = Path(settings.catalog_folder or Path(settings.root) / "catalogs")
    known = catalogs.load_declarations(declarations)
    chosen = (
        [item for item in known.values() if item.service]
        if name is None
        else [catalogs.get_declaration(name, declarations)]
    )
    services = [check_service(item, url=url, chunk=chunk) for item in chosen]
    day = None if as_of is None else _day(as_of)
    needs_cells = any(service.kind != "tns" for service in services)
    if needs_cells and for_nights is None:
        raise InputError("no nights are named", mend="add --for-nights START STOP")
    cells = _cells(settings.root, survey, for_nights) if needs_cells and for_nights else np.empty(0, np.int64)
    done = []
    for declaration in chosen:
        fetched = fetch_catalog(
            declaration,
            cells,
            place,
            today=datetime.datetime.now(datetime.UTC).date(),
            as_of=day,
            url=url,
            chunk=chunk,
            timeout_sec=timeout,
            is_partial_allowed=partial,
            progress=_Progress(declaration.name) if sys.stderr.isatty() else None,
        )
        done.append(fetched)
        if not as_json:
            _tell(fetched)
    if as_json:
        documents: list[dict[str, Any]] = [item.as_dict() for item in done]
        click.echo(json.dumps(documents if is_all else documents[0], indent=1))


def _cells(root: str, survey: str | None, nights: tuple[str, str]) -> NDArray[np.int64]:
    """Return the order-29 cells of the alerts of some nights, each once."""
    import numpy as np

    import pipeline
    from pipeline import paths

    first, last = (paths.parse_night(night) for night in nights)
    if first > last:
        raise InputError(f"the nights end ({last}) before they begin ({first})")
    archive = pipeline.open(root, survey=survey)
    selection = archive.alerts(f"{first}:{last}", columns=["healpix_29"])
    found = [np.unique(batch.column(0).to_numpy()) for batch in selection.batches()]
    if not found:
        raise InputError(f"no alert of nights {first} to {last} is in the archive {root}")
    return np.unique(np.concatenate(found))


def _day(text: str) -> datetime.date:
    digits = text.replace("-", "")
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        raise CatalogError(f"{text!r} is no day", mend="write it YYYY-MM-DD") from None


def _tell(fetched: Fetched) -> None:
    cells = f"{fetched.cells_asked:,} cells asked, {fetched.cells_known:,} known before"
    sent = f"{fetched.requests:,} requests" + (f", {fetched.retries:,} of them again" if fetched.retries else "")
    click.echo(f"{fetched.name}: {cells}; {sent}")
    held = f"{fetched.rows:,} sources in {fetched.covered_deg2:.4f} deg2, snapshot {fetched.snapshot_date}"
    click.echo(f"{fetched.name}: {held}, {fetched.path}")
    if fetched.problem is not None:
        missing = fetched.cells_wanted - fetched.cells_known - fetched.cells_asked
        click.echo(f"alertmill: {missing:,} cells are not covered: {fetched.problem}", err=True)


class _Progress:
    """One line on the terminal that counts cells."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, done: int, total: int) -> None:
        click.echo(f"\r{self._name}: {done:,} of {total:,} cells", nl=done == total, err=True)
