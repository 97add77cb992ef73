"""``alertmill catalogs``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.fetch import fetch
from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from pipeline.catalogs import Catalog
    from pipeline.xmatch import CatalogDeclaration

_folder_options = (
    click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]"),
    click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]"),
    click.option("--folder", metavar="DIR", help="Folder of built catalogs. [default: ROOT/catalogs]"),
)
_declarations_option = click.option(
    "--declarations", multiple=True, metavar="PATH", help="Your own declarations: a TOML file or a folder; repeatable."
)


def _with_folder(function: Any) -> Any:
    for option in _folder_options:
        function = option(function)
    return function


@click.group()
def command() -> None:
    """List, build and check catalogs.

    \b
    Example:
      alertmill catalogs list
      alertmill catalogs build gcvs gcvs.parquet
      alertmill catalogs verify gcvs
    """


command.add_command(fetch)


@command.command("list")
@_with_folder
@_declarations_option
@json_option
def list_(
    folder: str | None, root: str | None, config_file: str | None, declarations: tuple[str, ...], as_json: bool
) -> None:
    """Show every declared catalog and whether it is built.

    \b
    Example:
      alertmill catalogs list --json
    """
    from pipeline import catalogs

    place = _place(folder, root, config_file)
    declared = catalogs.load_declarations(declarations)
    others = {item.parent.name for item in place.glob("*/meta.json")} - set(declared)
    rows = [_listed(name, declared.get(name), place / name) for name in sorted({*declared, *others})]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("catalog", "rows built", "radius", "what")
    for row in rows:
        count = "-" if row["rows"] is None else f"{row['rows']:,}"
        radius = "-" if row["radius_arcsec"] is None else f'{row["radius_arcsec"]:g}"'
        table.add_row(str(row["name"]), count, radius, str(row["problem"] or row["doc"]))
    Console(highlight=False).print(table)


def _listed(name: str, declaration: CatalogDeclaration | None, place: Path) -> dict[str, Any]:
    """Return what is told of one catalog; one that cannot be opened does not hide the others."""
    from pipeline import catalogs
    from pipeline.errors import CatalogError

    built, problem = None, None
    try:
        built = catalogs.open_catalog(place) if place.is_dir() else None
    except CatalogError as error:
        problem = str(error)
    told = declaration or (built.declaration if built else None)
    return {
        "name": name,
        "rows": built.rows if built else None,
        "snapshot_date": built.snapshot_date if built else None,
        "service": told.service["kind"] if told and told.service else None,
        "radius_arcsec": told.radius_arcsec if told else None,
        "columns": [item.name for item in told.columns] if told else [],
        "doc": told.doc if told else "",
        "problem": problem,
    }


@command.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_with_folder
@_declarations_option
@click.option("--ra", metavar="COLUMN", help="A plain table: its right ascension, ICRS degrees.")
@click.option("--dec", metavar="COLUMN", help="A plain table: its declination, ICRS degrees.")
@click.option("--radius-arcsec", type=float, metavar="R", help="A plain table: largest separation of a match.")
@click.option("--id", "identifier", metavar="COLUMN", help="A plain table: the column that identifies a source.")
@click.option("--epoch", type=float, metavar="YEAR", help="A plain table: epoch of its positions. [default: 2000]")
@click.option("--delimiter", metavar="CHAR", help="A plain table: delimiter of a text file. [default: ,]")
@click.option("--snapshot-date", metavar="DATE", help="Day on which the source was asked, YYYY-MM-DD.")
@json_option
def build(
    name: str,
    files: tuple[str, ...],
    folder: str | None,
    root: str | None,
    config_file: str | None,
    declarations: tuple[str, ...],
    snapshot_date: str | None,
    as_json: bool,
    **plain: Any,
) -> None:
    """Build catalog NAME from its FILE: Parquet, text, FITS, VOTable or the folder of a HATS catalog.

    Several files are joined. NAME is a declared catalog, or the name of a plain table of yours whose columns the
    options tell; all its columns are taken over.

    \b
    Example:
      alertmill catalogs build x4lac table-4LAC-DR3-h.fits table-4LAC-DR3-l.fits
      alertmill catalogs build mine mine.csv --ra RA --dec Dec --radius-arcsec 2 --id name
      alertmill catalogs build gaia_dr3 /data/hats/gaia_dr3
    """
    from pipeline import catalogs

    declaration = _plain(name, files, declarations, plain)
    if declaration is None:
        declaration = catalogs.get_declaration(name, declarations)
    place = _place(folder, root, config_file) / name
    with _bars() as progress:
        built = catalogs.build(declaration, files, place, snapshot_date=snapshot_date, progress=progress)
    _show(built, as_json)


def _plain(
    name: str, files: tuple[str, ...], declarations: tuple[str, ...], given: dict[str, Any]
) -> CatalogDeclaration | None:
    """Return the declaration that the options for a plain table make; None where none was given."""
    from pipeline import catalogs
    from pipeline.errors import InputError

    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return None
    missing = [f"--{key.replace('_', '-')}" for key in ("ra", "dec", "radius_arcsec") if key not in given]
    if missing:
        raise InputError(f"a plain table needs {', '.join(missing)}", mend="or declare it: --declarations FILE")
    if name in catalogs.load_declarations(declarations):
        raise InputError(f"{name} is a declared catalog", mend="name your table otherwise, or leave its options out")
    return catalogs.declare_table(name, files[0], **given)


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show how far a build is on standard error, where someone looks; nothing there otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:<8}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                for earlier in tasks.values():
                    progress.update(earlier, total=progress.tasks[earlier].completed)
                tasks[what] = progress.add_task(what, total=of or None)
            progress.update(tasks[what], completed=done)

        yield tell


@command.command()
@click.argument("name")
@_with_folder
@json_option
def info(name: str, folder: str | None, root: str | None, config_file: str | None, as_json: bool) -> None:
    """Show what a built catalog holds and where it is from.

    \b
    Example:
      alertmill catalogs info gcvs
    """
    _show(_open(name, folder, root, config_file), as_json)


@command.command()
@click.argument("name")
@_with_folder
@json_option
def verify(name: str, folder: str | None, root: str | None, config_file: str | None, as_json: bool) -> None:
    """Compare every byte of a built catalog with what was recorded when it was built.

    \b
    Example:
      alertmill catalogs verify gcvs
    """
    catalog = _open(name, folder, root, config_file)
    catalog.verify()
    if as_json:
        click.echo(json.dumps({"name": catalog.name, "digest": catalog.digest, "is_intact": True}))
    else:
        click.echo(f"{catalog.name}: intact, {catalog.rows:,} rows, digest {catalog.digest[:16]}")


def _place(folder: str | None, root: str | None, config_file: str | None) -> Path:
    from pipeline import config

    settings, _ = config.load({"root": root, "catalog_folder": folder}, file=config_file)
    return Path(settings.catalog_folder or Path(settings.root) / "catalogs")


def _open(name: str, folder: str | None, root: str | None, config_file: str | None) -> Catalog:
    from pipeline import catalogs

    return catalogs.open_catalog(_place(folder, root, config_file) / name)


def _show(catalog: Catalog, as_json: bool) -> None:
    declaration = catalog.declaration
    facts: dict[str, Any] = {
        "name": catalog.name,
        "doc": declaration.doc,
        "path": str(catalog.path),
        "rows": catalog.rows,
        "rows_without_position": catalog.rows_without_position,
        "covered_deg2": catalog.meta["covered_deg2"],
        "snapshot_date": catalog.snapshot_date,
        "radius_arcsec": declaration.radius_arcsec,
        "margin_arcsec": declaration.margin_arcsec,
        "matched_at_its_motion": declaration.motion is not None,
        "host_radius_kpc": declaration.host.radius_kpc if declaration.host else None,
        "epoch": declaration.epoch,
        "digest": catalog.digest,
        "source": declaration.source,
        "files": [source["name"] for source in catalog.meta["sources"]],
        "licence": declaration.licence,
        "reference": declaration.reference,
    }
    if as_json:
        columns = [{"name": item.name, "type": str(item.type)} for item in declaration.fields()]
        click.echo(json.dumps({**facts, "columns": columns}, indent=1))
        return
    for name, value in facts.items():
        if value is None:
            continue
        click.echo(f"{name:<22} {', '.join(value) if isinstance(value, list) else value}")
    for item in declaration.fields():
        click.echo(f"  {item.name:<36} {item.type!s:<8} {item.metadata[b'doc'].decode()}")
