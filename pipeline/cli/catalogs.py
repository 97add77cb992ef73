"""``alertmill catalogs``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.fetch import fetch
from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from pipeline.catalogs import Catalog

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
    rows = []
    for name, declaration in sorted(catalogs.load_declarations(declarations).items()):
        is_built = (place / name).is_dir()
        built = catalogs.open_catalog(place / name) if is_built else None
        rows.append(
            {
                "name": name,
                "rows": built.rows if built else None,
                "radius_arcsec": declaration.radius_arcsec,
                "columns": [item.name for item in declaration.columns],
                "doc": declaration.doc,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("catalog", "rows built", "radius", "what")
    for row in rows:
        count = "-" if row["rows"] is None else f"{row['rows']:,}"
        table.add_row(str(row["name"]), count, f'{row["radius_arcsec"]:g}"', str(row["doc"]))
    Console(highlight=False).print(table)


@command.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_with_folder
@_declarations_option
@json_option
def build(
    name: str,
    files: tuple[str, ...],
    folder: str | None,
    root: str | None,
    config_file: str | None,
    declarations: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build catalog NAME from its FILE (Parquet, text, FITS or VOTable); several files are joined.

    \b
    Example:
      alertmill catalogs build x4lac table-4LAC-DR3-h.fits table-4LAC-DR3-l.fits
      alertmill catalogs build mine mine.csv --declarations mine.toml
    """
    from pipeline import catalogs

    declaration = catalogs.get_declaration(name, declarations)
    _show(catalogs.build(declaration, files, _place(folder, root, config_file) / name), as_json)


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
        "radius_arcsec": declaration.radius_arcsec,
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
        click.echo(f"{name:<22} {', '.join(value) if isinstance(value, list) else value}")
    for item in declaration.fields():
        click.echo(f"  {item.name:<36} {item.type!s:<8} {item.metadata[b'doc'].decode()}")
