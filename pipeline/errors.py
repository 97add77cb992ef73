"""The errors alertmill raises on purpose.

Every one is a :class:`PipelineError` and carries where it happened (dataset, part, source, row), so that the command
line can print one clear line: what, where, how to mend.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error that alertmill raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, in one line.
    dataset, part, source : str, optional
        Where: the dataset, the part and the source file concerned.
    row : int, optional
        Row (or packet number) within the part or source, from 0.
    mend : str, optional
        How to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        dataset: str | None = None,
        part: str | None = None,
        source: str | None = None,
        row: int | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.dataset = dataset
        self.part = part
        self.source = source
        self.row = row
        self.mend = mend

    def __str__(self) -> str:
        """Return one line: the message, where it happened, how to mend it."""
        named = (("source", self.source), ("dataset", self.dataset), ("part", self.part), ("row", self.row))
        where = ", ".join(f"{name} {value}" for name, value in named if value is not None)
        line = f"{self.message} ({where})" if where else self.message
        line = " ".join(line.split())
        return f"{line}; {self.mend}" if self.mend else line

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword, so that an error raised in a worker process arrives whole."""
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(cls: type[PipelineError], message: str, state: dict[str, object]) -> PipelineError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class InputError(PipelineError):
    """The user named something that cannot be used: a file, a night, an option (exit code 2)."""


class SchemaError(PipelineError):
    """A table or packet does not have the declared schema."""


class SourceError(InputError):
    """A source (dump file) cannot be read as a whole: truncated archive, unknown schema."""


class CatalogError(InputError):
    """A catalog, sky map or model is absent, damaged or of another version."""


class ServiceError(PipelineError):
    """A catalog service is down, refuses, or answers what cannot be right; nothing of it was taken over."""


class PartError(PipelineError):
    """One part failed; its night fails and names it."""


class ConservationError(PipelineError):
    """The sums of a night's ledger do not balance: something would have been lost silently."""


class LeaseError(InputError):
    """Another run holds the lock of this night."""


class StoreError(InputError):
    """The root cannot be used: unwritable, of a newer layout, or damaged."""
