"""alertmill: reprocess nights of astronomical alerts, fast, exactly and repeatably.

The public reading API is :func:`pipeline.open`; everything else is reached through the ``alertmill`` command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.archive import Archive

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(root: str, **options: Any) -> Archive:  # noqa: A001 - the public name, as in gzip.open
    """Open an archive for reading; see :func:`pipeline.archive.open_archive`."""
    from pipeline.archive import open_archive

    return open_archive(root, **options)
