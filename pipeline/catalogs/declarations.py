"""The catalog declarations: those that ship with the project, and the user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pipeline
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration, parse_declaration
from pipeline.xmatch.otypes import ObjectTypes, parse_otypes


def packaged_folder() -> Path:
    """Return the folder of the shipped declarations: within the wheel, or beside the package in a checkout."""
    package = Path(pipeline.__file__).parent
    installed = package / "_catalogs"
    return installed if installed.is_dir() else package.parent / "catalogs"


def load_declarations(extra_paths: Iterable[str | Path] = ()) -> dict[str, CatalogDeclaration]:
    """Return every declared catalog by name.

    Parameters
    ----------
    extra_paths : iterable of path
        The user's own: TOML files, or folders of them; a name given there replaces the shipped one.

    Raises
    ------
    CatalogError
        A file is absent, is no TOML, or declares a catalog wrongly.
    """
    declarations: dict[str, CatalogDeclaration] = {}
    for place in (packaged_folder(), *map(Path, extra_paths)):
        if not place.exists():
            raise CatalogError(f"catalog declaration {place} does not exist")
        for file in sorted(place.glob("*.toml")) if place.is_dir() else [place]:
            declaration = _load(file)
            declarations[declaration.name] = declaration
    return declarations


def get_declaration(name: str, extra_paths: Iterable[str | Path] = ()) -> CatalogDeclaration:
    """Return one declaration, or raise CatalogError naming those there are."""
    declarations = load_declarations(extra_paths)
    if name not in declarations:
        raise CatalogError(f"no catalog {name} is declared", mend=f"declared are {', '.join(sorted(declarations))}")
    return declarations[name]


@cache
def load_otypes() -> ObjectTypes:
    """Return the object types of SIMBAD: spellings, codes and hierarchy."""
    file = packaged_folder() / "simbad_otypes.csv"
    try:
        return parse_otypes(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"the table of object types cannot be read: {error}", source=str(file)) from error


def _load(file: Path) -> CatalogDeclaration:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"catalog declaration cannot be read: {error}", source=str(file)) from error
    return parse_declaration(values, str(file))
