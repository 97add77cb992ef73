"""Where things stand within a root: pure string arithmetic, the only place that knows the layout.

All paths are relative to the root and use ``/``; :mod:`pipeline.store` joins them to a folder or an object store.
"""

from __future__ import annotations

import hashlib
import re

from pipeline.errors import InputError

LAYOUT_VERSION = 1
ROOT_FILE = "root.json"
STAGING = "_staging"
LEASES = "_leases"
REGISTRY = "_registry"
"""What schema registries answered: an id names one schema for ever, so no later run needs the network."""
PART_DATASETS = ("raw", "cutouts", "alerts", "provenance", "science")
"""Datasets whose parts correspond row by row."""
RELEASED_DATASETS = ("science", "links")
UNKNOWN_NIGHT = 0
"""Stands for ``night=unknown``: packets that could not be read far enough to know their night."""

_NIGHT = re.compile(r"^(?:19|20)\d{6}$")
_RELEASE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


def parse_night(text: str | int) -> int:
    """Return a night given as ``YYYYMMDD`` (or ``YYYY-MM-DD``) as an integer.

    Raises
    ------
    InputError
        Not a calendar date.
    """
    import datetime

    digits = str(text).replace("-", "")
    if _NIGHT.match(digits):
        try:
            datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        except ValueError:
            pass
        else:
            return int(digits)
    raise InputError(f"{text!r} is not a night", mend="write it as YYYYMMDD, for example 20181129")


def parse_release(text: str) -> str:
    """Return a release name, or raise :class:`InputError` if it cannot be a folder name."""
    if not _RELEASE.match(text):
        raise InputError(f"{text!r} cannot name a release", mend="use letters, digits, dot, dash or underscore")
    return text


def night_name(night: int) -> str:
    """Return the partition folder of a night: ``night=20181129``, or ``night=unknown``."""
    return "night=unknown" if night == UNKNOWN_NIGHT else f"night={night:08d}"


def night_of_name(name: str) -> int | None:
    """Return the night of a partition folder's name, None if it is no such name."""
    if name == "night=unknown":
        return UNKNOWN_NIGHT
    digits = name.removeprefix("night=")
    return int(digits) if name.startswith("night=") and _NIGHT.match(digits) else None


def dataset_folder(survey: str, dataset: str, night: int, release: str = "main") -> str:
    """Return the folder of one dataset of one night, relative to the root."""
    released = f"/{release}" if dataset in RELEASED_DATASETS else ""
    return f"{survey}/{dataset}{released}/{night_name(night)}"


def ledger_file(survey: str, night: int) -> str:
    """Return the path of a night's ledger."""
    return f"{survey}/ledger/{night_name(night)}.json"


def lease_file(name: str) -> str:
    """Return the path of a lease: of a night (``ztf-night=20181129``) or of a run's staging."""
    return f"{LEASES}/{name}.json"


def staging_folder(run: str) -> str:
    """Return the folder in which a run prepares its files."""
    return f"{STAGING}/{run}"


def schema_file(survey: str, writer_schema_id: str) -> str:
    """Return the path of a writer schema met in a dump: what turns rows of ``raw`` back into packets."""
    return f"{survey}/schemas/{writer_schema_id.replace(':', '-')}.avsc"


def release_schema_file(survey: str, release: str) -> str:
    """Return the path of the one Arrow schema of a release's science dataset."""
    return f"{survey}/science/{release}/_schema.arrow"


def report_folder(survey: str, night: int) -> str:
    """Return the folder of a night's report."""
    return f"reports/{survey}/{night:08d}"


def source_digest(source_name: str) -> str:
    """Return the eight hexadecimal digits by which parts name their source."""
    return hashlib.sha256(source_name.encode()).hexdigest()[:8]


def source_number(source_name: str) -> int:
    """Return the number by which rows name their source: 31 bits of its name's digest, so that no order matters."""
    return int(source_digest(source_name), 16) >> 1


def part_name(source_name: str, segment: int, index: int) -> str:
    """Return the name of a part: a pure function of its source's name and its place in it."""
    return f"part-{source_digest(source_name)}-{segment:05d}-{index:05d}"


def part_file(name: str, sha256: str) -> str:
    """Return the file name of a part with this content.

    The content stands in the name, so that a commit never overwrites a file which the present ledger lists: the
    ledger's replacement is the one moment at which a night changes.
    """
    return f"{name}.{sha256[:8]}.parquet"
