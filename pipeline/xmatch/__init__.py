"""Cross-match of positions with catalogs: the kernel, and what a catalog declares about itself."""

from pipeline.xmatch.declaration import CatalogColumn, CatalogDeclaration, HostColumns, Motion, parse_declaration
from pipeline.xmatch.kernel import MatchIndex, Nearest, Pairs, build_index, nearest, within

__all__ = [
    "CatalogColumn",
    "CatalogDeclaration",
    "HostColumns",
    "MatchIndex",
    "Motion",
    "Nearest",
    "Pairs",
    "build_index",
    "nearest",
    "parse_declaration",
    "within",
]
