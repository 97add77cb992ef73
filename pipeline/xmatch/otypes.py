"""The object types of SIMBAD: any spelling to its code, and which types a type comprises.

SIMBAD changed its vocabulary in July 2022 (https://simbad.cds.unistra.fr/guide/otypes.htx). Alerts of earlier years,
catalogs of then and users name types by the old labels, the new ones or the condensed codes; here they meet.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError

_FIELDS = ("code", "label", "earlier", "ancestors", "also_under", "kind", "origin")
_CANDIDATE = (("Candidate_", ""), ("Possible_", ""), ("", "_Candidate"), ("", "?"))


@dataclass(frozen=True)
class ObjectType:
    """One object type.

    Attributes
    ----------
    code, label : str
        Condensed code and label as SIMBAD writes them since July 2022.
    earlier : tuple of str
        Labels and codes of before.
    ancestors : tuple of str
        Codes of every type that comprises it, from the root.
    is_candidate : bool
        Objects that may be of the type that is its last ancestor.
    """

    code: str
    label: str
    earlier: tuple[str, ...]
    ancestors: tuple[str, ...]
    is_candidate: bool


class ObjectTypes:
    """All object types.

    Parameters
    ----------
    types : iterable of ObjectType
        Each once.

    Raises
    ------
    CatalogError
        A code or spelling is there twice, or an ancestor is unknown.
    """

    def __init__(self, types: Iterable[ObjectType]) -> None:
        self._types: dict[str, ObjectType] = {}
        for item in types:
            if item.code in self._types:
                raise CatalogError(f"object type {item.code} is there twice")
            self._types[item.code] = item
        self._spellings: dict[str, str] = {}
        for item in self._types.values():
            for text in (item.label, *item.earlier):
                if self._spellings.setdefault(text, item.code) != item.code:
                    raise CatalogError(f"{text} spells both {self._spellings[text]} and {item.code}")
            unknown = [code for code in item.ancestors if code not in self._types]
            if unknown:
                raise CatalogError(f"object type {item.code} stands under unknown {', '.join(unknown)}")
        self._candidates = {item.ancestors[-1]: item.code for item in self._types.values() if item.is_candidate}
        self._folded: dict[str, set[str]] = {}
        for text, code in self._spellings.items():
            if len(text) > 2:  # no case tells C* from c*
                self._folded.setdefault(text.casefold(), set()).add(code)

    def __iter__(self) -> Iterator[ObjectType]:
        """Go through the types."""
        return iter(self._types.values())

    def __len__(self) -> int:
        """Return how many types there are."""
        return len(self._types)

    def __getitem__(self, code: str) -> ObjectType:
        """Return the type of a code; raise KeyError where there is none."""
        return self._types[code]

    def code(self, spelling: str | None) -> str | None:
        """Return the code of a type however it is spelled, None where no type is spelled so.

        Codes and labels are taken as SIMBAD writes them first (``S*`` is not ``s*``), a label then in any case. A
        candidate is known by ``Candidate_X``, ``Possible_X``, ``X_Candidate`` and ``X?`` too.
        """
        text = (spelling or "").strip()
        if text in self._types:
            return text
        if text in self._spellings:
            return self._spellings[text]
        folded = self._folded.get(text.casefold(), set())
        if len(folded) == 1:
            return next(iter(folded))
        for begin, end in _CANDIDATE:
            inner = text.removeprefix(begin).removesuffix(end)
            if inner and inner != text and text.startswith(begin) and text.endswith(end):
                code = self.code(inner)
                if code in self._candidates:
                    return self._candidates[code]
        return None

    def descendants(self, code: str, *, with_candidates: bool = False) -> frozenset[str]:
        """Return the codes of a type and of every type under it.

        Parameters
        ----------
        code : str
            A code.
        with_candidates : bool
            Whether objects that only may be of these types count.

        Raises
        ------
        KeyError
            There is no such type.
        """
        chosen = self._types[code]
        return frozenset(
            item.code
            for item in self._types.values()
            if item is chosen or (code in item.ancestors and (with_candidates or not item.is_candidate))
        )

    def translate(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the code of every text, null where no type is spelled so."""
        encoded = texts.combine_chunks().dictionary_encode()
        codes = pa.array([self.code(text) for text in encoded.dictionary.to_pylist()], pa.string())
        return pa.chunked_array([pc.take(codes, encoded.indices)], pa.string())


def parse_otypes(text: str, where: str = "object types") -> ObjectTypes:
    """Return the object types that a table tells: comma-separated, ``#`` comments, a header line.

    Parameters
    ----------
    text : str
        The table: code, label, earlier spellings and ancestors (each separated), a further parent, kind, origin.
    where : str
        Named in errors.

    Raises
    ------
    CatalogError
        The table is of another form or contradicts itself.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("# ")]
    rows = list(csv.DictReader(lines))
    if not rows or tuple(rows[0]) != _FIELDS or any(None in row or None in row.values() for row in rows):
        raise CatalogError(f"the table of object types does not have columns {', '.join(_FIELDS)}", source=where)
    further = {row["code"]: tuple(filter(None, row["also_under"].split(">"))) for row in rows}
    types = []
    for row in rows:
        above = tuple(filter(None, row["ancestors"].split(">")))
        # Whatever an ancestor also stands under comprises it as well.
        also = [code for item in (*above, row["code"]) for code in further.get(item, ())]
        types.append(
            ObjectType(
                row["code"],
                row["label"],
                tuple(filter(None, row["earlier"].split("|"))),
                tuple(dict.fromkeys([code for code in also if code not in above] + list(above))),
                row["kind"] == "candidate",
            )
        )
    return ObjectTypes(types)
