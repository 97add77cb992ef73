"""Alarms: a failed or missing night is told to whoever the configuration names, and always to ``ROOT/alarms.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template

ALARM_FILE = "alarms.jsonl"
_POST_LIMIT_SEC = 10.0


@dataclass(frozen=True)
class Alarm:
    """What is told.

    Attributes
    ----------
    survey : str
        Survey of the night.
    night : str or None
        Night as YYYYMMDD; None for a run over all the nights of its input.
    what : str
        ``failed``, ``crashed`` or ``missing`` (there is no dump).
    message : str
        One line: what went wrong, where, how to mend it.
    root : str
        The archive.
    when : str
        Time of the alarm, UTC, ISO 8601.
    """

    survey: str
    night: str | None
    what: str
    message: str
    root: str
    when: str

    @classmethod
    def now(cls, survey: str, night: str | None, what: str, message: str, root: str) -> Alarm:
        """Return an alarm of this moment."""
        return cls(survey, night, what, message, root, datetime.now(UTC).isoformat(timespec="seconds"))


def raise_alarm(alarm: Alarm, targets: Sequence[str]) -> list[str]:
    """Tell the archive's own alarm file and every target; return one line for each that could not be told.

    Parameters
    ----------
    alarm : Alarm
        What is told, as one JSON document.
    targets : sequence of str
        ``file:PATH`` (a line is appended) or ``http(s)://...`` (a POST). ``${NAME}`` stands for an environment
        variable, so that no secret need be written in a file.
    """
    problems = []
    for target in [f"file:{Path(alarm.root) / ALARM_FILE}", *targets]:
        try:
            _tell(Template(target).substitute(os.environ) if target in targets else target, alarm)
        except KeyError as error:
            problems.append(f"alarm to {target}: environment variable {error} is not set")
        except (OSError, ValueError, RuntimeError) as error:
            # Only the kind of error: its text may hold the address, and with it a secret.
            problems.append(f"alarm to {target} failed: {_kind(error)}")
    return problems


def _tell(target: str, alarm: Alarm) -> None:
    document = json.dumps(asdict(alarm))
    if target.startswith("file:"):
        path = Path(target.removeprefix("file:")).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(document + "\n")
        return
    import httpx

    try:
        answer = httpx.post(
            target, content=document, headers={"content-type": "application/json"}, timeout=_POST_LIMIT_SEC
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RuntimeError(type(error).__name__) from None
    if answer.status_code >= 300:
        raise RuntimeError(f"answered {answer.status_code}")


def _kind(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is RuntimeError else type(error).__name__
