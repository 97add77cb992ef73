"""The surveys alertmill knows."""

from __future__ import annotations

from pipeline.errors import InputError
from pipeline.surveys.base import Survey
from pipeline.surveys.elasticc import ELASTICC
from pipeline.surveys.lsst import LSST
from pipeline.surveys.ztf import ZTF

SURVEYS: dict[str, Survey] = {survey.name: survey for survey in (ZTF, LSST, *ELASTICC)}


def get(name: str) -> Survey:
    """Return the survey called ``name``, or fail with the names there are."""
    try:
        return SURVEYS[name]
    except KeyError:
        raise InputError(f"there is no survey {name!r}", mend=f"choose one of {', '.join(SURVEYS)}") from None
