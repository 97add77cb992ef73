"""Catalogs on disk: their declarations, building them from a file, opening what was built."""

from pipeline.catalogs.building import build
from pipeline.catalogs.declarations import get_declaration, load_declarations
from pipeline.catalogs.opened import Catalog, open_catalog

__all__ = ["Catalog", "build", "get_declaration", "load_declarations", "open_catalog"]
