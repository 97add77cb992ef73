"""Catalogs on disk: their declarations, building them from files or HATS catalogs, opening what was built."""

from pipeline.catalogs.building import build
from pipeline.catalogs.declarations import get_declaration, load_declarations, load_otypes
from pipeline.catalogs.hats import HatsCatalog, HatsMatches, match_parquet, open_hats
from pipeline.catalogs.opened import Catalog, open_catalog
from pipeline.catalogs.plain import declare_table

__all__ = [
    "Catalog",
    "HatsCatalog",
    "HatsMatches",
    "build",
    "declare_table",
    "get_declaration",
    "load_declarations",
    "load_otypes",
    "match_parquet",
    "open_catalog",
    "open_hats",
]
