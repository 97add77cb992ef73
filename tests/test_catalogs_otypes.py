"""The object types of SIMBAD: both vocabularies, hierarchy, and the column of codes that a catalog makes of texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from catalog_samples import declare
from hypothesis import given
from hypothesis import strategies as st

from pipeline import catalogs
from pipeline.errors import CatalogError
from pipeline.xmatch.otypes import ObjectType, ObjectTypes, parse_otypes

TYPES = catalogs.load_otypes()

# Old label, label since July 2022, code: from the two guides of SIMBAD.
BOTH_AGES = [
    ("SN", "Supernova", "SN*"),
    ("Candidate_SN*", "Supernova_Candidate", "SN?"),
    ("RRLyr", "RRLyrae", "RR*"),
    ("Candidate_CV*", "CataclyV*_Candidate", "CV?"),
    ("EB*", "EclBin", "EB*"),
    ("LMXB", "LowMassXBin", "LXB"),
    ("Seyfert_1", "Seyfert1", "Sy1"),
    ("QSO_Candidate", "QSO_Candidate", "Q?"),
    ("Possible_G", "Galaxy_Candidate", "G?"),
    ("GlCl", "GlobCluster", "GlC"),
    ("TTau*", "TTauri*", "TT*"),
    ("low-mass*", "Low-Mass*", "LM*"),
    ("RedSG*", "RedSG", "s*r"),
    ("PulsV*delSct", "delSctV*", "dS*"),
    ("Planet?", "Planet_Candidate", "Pl?"),
    ("IR<10um", "NearIR", "NIR"),
    ("SNR", "SNRemnant", "SNR"),
]


@pytest.mark.parametrize(("old", "new", "code"), BOTH_AGES)
def test_both_vocabularies_meet_in_the_code(old: str, new: str, code: str) -> None:
    assert [TYPES.code(text) for text in (old, new, code, f" {new} ", new.upper())] == [code] * 5


def test_spellings() -> None:
    assert TYPES.code("S*") == "S*"  # an S star, and not a supergiant or the like
    assert TYPES.code("sg*") == "sg*"
    assert TYPES.code("Candidate_Supernova") == TYPES.code("Supernova?") == "SN?"
    assert TYPES.code("Symbiotic*_Candidate") == TYPES.code("Candidate_Symb*") == "Sy?"
    assert TYPES.code("DwarfNova") == "CV*"  # given up as a class of its own
    for nothing in (None, "", "Fail", "Fail 500", "nan", "_Candidate", "Candidate_", "?_Candidate_?"):
        assert TYPES.code(nothing) is None, nothing
    assert TYPES.code("Unknown") == "?"


def test_every_spelling_leads_to_its_type() -> None:
    assert len(TYPES) > 200
    for item in TYPES:
        assert TYPES.code(item.code) == item.code
        for text in (item.label, *item.earlier):
            assert TYPES.code(text) == item.code or text in {other.code for other in TYPES}, text
        # The code of one type is never the label of another.
        assert TYPES.code(item.label) == item.code


@given(st.text(max_size=30))
def test_any_text_is_a_type_or_none(text: str) -> None:
    code = TYPES.code(text)
    assert code is None or TYPES[code].code == code


def test_hierarchy() -> None:
    assert TYPES["RR*"].ancestors == ("V*", "*", "Ev*", "HB*")
    assert TYPES.descendants("SN*") == {"SN*"}
    assert TYPES.descendants("SN*", with_candidates=True) == {"SN*", "SN?"}
    assert TYPES.descendants("SN?") == {"SN?"}
    assert TYPES.descendants("QSO") == {"QSO", "Bla", "BLL"}
    assert TYPES.descendants("AGN") == {"AGN", "LIN", "QSO", "Bla", "BLL", "SyG", "Sy1", "Sy2", "rG"}
    assert {"RR*", "cC*", "EB*", "Mi*", "No*", "TT*"} - TYPES.descendants("V*") == {"TT*"}  # as the guide lists it
    assert TYPES.descendants("Cl*") == {"Cl*", "GlC", "OpC", "As*", "St*", "MGr"}
    # The guide's own list of what "ISM" selects.
    names = "ISM SFR HII Cld GNe RNe MoC DNe glb CGb HVC cor bub SNR sh flt"
    assert TYPES.descendants("ISM") == set(names.split())
    galaxies = "G LSB bCG SBG H2G EmG AGN SyG Sy1 Sy2 rG LIN QSO Bla BLL GiP GiG GiC BiC"
    assert TYPES.descendants("G") == set(galaxies.split())
    for item in TYPES:
        assert item.code in TYPES.descendants(item.code)
        for above in item.ancestors:
            assert TYPES.descendants(item.code) <= TYPES.descendants(above, with_candidates=True)
    with pytest.raises(KeyError):
        TYPES.descendants("Supernova")


def test_a_catalog_holds_codes_beside_the_text(tmp_path: Path) -> None:
    (tmp_path / "simbad.csv").write_text("RA,DE,otype\n1,2,SN\n3,4,Supernova\n5,6,\n7,8,Weird\n9,10,QSO_Candidate\n")
    columns = [
        {"name": "otype", "vocabulary": "simbad_otype"},
        {"name": "otype_text", "source": "otype"},
    ]
    catalog = catalogs.build(declare(column=columns, id="otype"), tmp_path / "simbad.csv", tmp_path / "built")
    rows = catalog.payload.take(range(5), ["otype", "otype_text"]).to_pylist()  # type: ignore[arg-type]
    assert {row["otype_text"]: row["otype"] for row in rows} == {
        **{"SN": "SN*", "Supernova": "SN*", None: None, "Weird": None, "QSO_Candidate": "Q?"}
    }
    for column in ({"name": "a", "vocabulary": "other"}, {"name": "a", "type": "int64", "vocabulary": "simbad_otype"}):
        with pytest.raises(CatalogError, match="cannot have vocabulary"):
            declare(column=[column], id="a")


def test_translate_keeps_chunks_and_nulls() -> None:
    texts = pa.chunked_array([["SN", None], ["Supernova", "x"], pa.array([], pa.string())])
    assert TYPES.translate(texts).to_pylist() == ["SN*", None, "SN*", None]
    assert TYPES.translate(pa.chunked_array([], pa.string())).to_pylist() == []


def test_contradictions_are_refused() -> None:
    star = ObjectType("*", "Star", (), (), False)
    for types, message in [
        ([star, star], "there twice"),
        ([star, ObjectType("V*", "Star", (), (), False)], "spells both"),
        ([ObjectType("V*", "Variable*", (), ("*",), False)], "stands under unknown"),
    ]:
        with pytest.raises(CatalogError, match=message):
            ObjectTypes(types)
    for text in ("", "code,label\n*,Star\n", "code,label,earlier,ancestors,also_under,kind,origin\n*,Star\n"):
        with pytest.raises(CatalogError, match="table of object types"):
            parse_otypes(text)
