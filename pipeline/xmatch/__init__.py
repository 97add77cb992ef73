"""Cross-match of positions with catalogs: the kernel, and what a catalog declares about itself."""

from pipeline.xmatch.kernel import MatchIndex, Nearest, Pairs, build_index, nearest, within

__all__ = ["MatchIndex", "Nearest", "Pairs", "build_index", "nearest", "within"]
