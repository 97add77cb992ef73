"""Documents in the forms of the services: VOTables of CDS X-Match, VizieR, TAP servers; the zipped list of TNS."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence

import numpy as np
from astropy.table import Table

VIZIER_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xmlns="http://www.ivoa.net/xml/VOTable/v1.3"
  xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 http://www.ivoa.net/xml/VOTable/v1.3">
 <DESCRIPTION>
   VizieR Astronomical Server vizier.cds.unistra.fr
    Date: 2026-11-22T12:00:00 [V7.5]
   In case of problem, please report to: cds-question@unistra.fr
 </DESCRIPTION>
<INFO ID="VERSION" name="votable-version" value="1.99+ (14-Oct-2013)"/>
<INFO ID="Ref" name="-ref" value="VOTx23462"/>
<INFO name="-out.form" value="mini"/>
<INFO ID="MaxTuples" name="-out.max" value="{maxrec}"/>
<INFO name="queryParameters" value="5">
{script}
</INFO>
"""
_TYPES = {"i": 'datatype="long"', "f": 'datatype="double"', "U": 'datatype="char" arraysize="*"'}


def fields(table: Table) -> str:
    """FIELD elements of a table."""
    lines = []
    for name in table.colnames:
        unit = f' unit="{table[name].unit}"' if table[name].unit else ""
        lines.append(
            f'  <FIELD name="{name}" {_TYPES[table[name].dtype.kind]}{unit}><DESCRIPTION>x</DESCRIPTION></FIELD>'
        )
    return "\n".join(lines)


def table_data(table: Table) -> str:
    """TABLEDATA element; what is no number is an empty cell."""

    def cell(value: object) -> str:
        return "" if isinstance(value, float) and np.isnan(value) else str(value).replace("&", "&amp;")

    rows = [
        "<TR>" + "".join(f"<TD>{cell(value)}</TD>" for value in row) + "</TR>"
        for row in zip(*(table[n].tolist() for n in table.colnames), strict=True)
    ]
    return "<DATA><TABLEDATA>\n" + "\n".join(rows) + "\n</TABLEDATA></DATA>"


def xmatch(table: Table, is_cut: bool) -> bytes:
    """VOTable of CDS X-Match: the status before the table."""
    status = "OVERFLOW" if is_cut else "OK"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<VOTABLE version="1.2" xmlns="http://www.ivoa.net/xml/VOTable/v1.2">\n'
        f'<RESOURCE type="results">\n<INFO name="QUERY_STATUS" value="{status}"/>\n<TABLE>\n{fields(table)}\n'
        f"{table_data(table)}\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    ).encode()


def vizier(table: Table, is_cut: bool, script: str, maxrec: int) -> bytes:
    """VOTable of VizieR: the query repeated, no status unless truncated, and no table at all without rows."""
    head = VIZIER_HEAD.format(
        script="\n".join(line for line in script.splitlines() if line[:1] == "-" and "<" not in line), maxrec=maxrec
    )
    if not len(table):
        return (head + "</VOTABLE>\n").encode()
    cut = f"truncated result (maxtup={len(table)})"
    info = (
        f'<INFO name="Warning" value="{cut}"/>\n<INFO name="QUERY_STATUS" value="OVERFLOW">{cut}</INFO>\n'
        if is_cut
        else ""
    )
    return (
        f'{head}<RESOURCE ID="yCat_1355" name="I/355">\n<COOSYS ID="J2000" system="eq_FK5" equinox="J2000"/>\n'
        f'<TABLE ID="I_355_gaiadr3" name="I/355/gaiadr3">\n{fields(table)}\n{table_data(table)}\n</TABLE>\n{info}'
        "</RESOURCE>\n</VOTABLE>\n"
    ).encode()


def tap(table: Table, is_cut: bool, form: str) -> bytes:
    """VOTable of a TAP server: status before the table, overflow behind it, as DALI says."""
    stream = io.BytesIO()
    masked = Table(table, masked=True)
    for name in masked.colnames:
        if masked[name].dtype.kind == "f":
            masked[name].mask = np.isnan(masked[name])
    masked.write(stream, format="votable", tabledata_format=form)
    text = stream.getvalue().decode()
    text = re.sub(r"(<RESOURCE[^>]*>)", r'\1<INFO name="QUERY_STATUS" value="OK"/>', text, count=1)
    if is_cut:
        text = text.replace("</TABLE>", '</TABLE><INFO name="QUERY_STATUS" value="OVERFLOW"/>', 1)
    return text.encode()


def error(message: str) -> bytes:
    """VOTable of a failed query, as DALI says; services are known to send it with status 200 as well."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="ERROR">{message}</INFO></RESOURCE></VOTABLE>'
    ).encode()


HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Maintenance</title><style>p {}</style></head>"
    b"<body><p>We will be back soon.</p></body></html>"
)
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<VOTABLE><RESOURCE><INFO name='QUERY_STATUS' value='&b;'/></RESOURCE></VOTABLE>"
)

TNS_HEADER = [
    *("objid", "name_prefix", "name", "ra", "declination", "redshift", "typeid", "type", "reporting_groupid"),
    *("reporting_group", "source_groupid", "source_group", "discoverydate", "discoverymag", "discmagfilter", "filter"),
    *("reporters", "time_received", "internal_names", "Discovery_ADS_bibcode", "Class_ADS_bibcodes", "creationdate"),
    "lastmodified",
]


def tns(rows: Sequence[Sequence[object]], header: Sequence[str] = TNS_HEADER, files: int = 1) -> bytes:
    """The zipped list of TNS: a line that dates it, the names, every cell quoted."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["2026-11-22 00:00:00"])
    writer.writerow(header)
    writer.writerows(rows)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            archive.writestr(f"tns_public_objects{number or ''}.csv", text.getvalue())
    return packed.getvalue()


def tns_row(objid: int, prefix: str, name: str, ra: float, dec: float, kind: str = "", redshift: str = "") -> list:
    """One row of the list of TNS."""
    times = ["2025-11-20 10:00:00", "2025-11-21 10:00:00"]
    return [
        *(objid, prefix, name, ra, dec, redshift, "3" if kind else "", kind, "48", "ZTF", "48", "ZTF"),
        *("2025-11-19 08:00:00.000", "19.4", "110", "g", "A. Nobody, on behalf of all\nof us", times[0]),
        *("ZTF25aaa, ATLAS25bbb", "", "", *times),
    ]
