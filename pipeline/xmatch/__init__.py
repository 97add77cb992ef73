"""Cross-match of positions with catalogs: the kernels, and what a catalog declares about itself."""

from pipeline.xmatch.classes import SourceClasses, build_classes, within_reach
from pipeline.xmatch.declaration import CatalogColumn, CatalogDeclaration, HostColumns, Motion, parse_declaration
from pipeline.xmatch.index import MatchIndex, build_index, index_sorted
from pipeline.xmatch.matching import nearest, nearest_at, within, within_at
from pipeline.xmatch.motion import (
    build_motion_classes,
    julian_epoch,
    motion_reach_arcsec,
    nearest_moving,
    propagate,
    within_moving,
)
from pipeline.xmatch.pairs import Nearest, Pairs
from pipeline.xmatch.positions import Positions

__all__ = [
    "CatalogColumn",
    "CatalogDeclaration",
    "HostColumns",
    "MatchIndex",
    "Motion",
    "Nearest",
    "Pairs",
    "Positions",
    "SourceClasses",
    "build_classes",
    "build_index",
    "build_motion_classes",
    "index_sorted",
    "julian_epoch",
    "motion_reach_arcsec",
    "nearest",
    "nearest_at",
    "nearest_moving",
    "parse_declaration",
    "propagate",
    "within",
    "within_at",
    "within_moving",
    "within_reach",
]
