"""Those who decode the same packets: ours, fastavro, and Arrow's Avro reader in two libraries on a joint container."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
from corpora import Corpus
from reframing import by_datafusion, by_polars, reframe, resolvable

from pipeline import avro
from pipeline.avro import Decoded, Frames, HeaderCache
from pipeline.dumps import Reader, Segment, frames_in_tar, list_sources, read_frames, segments
from pipeline.schema import content_hashes
from pipeline.surveys import get as get_survey
from pipeline.surveys.superset import widen


def cut(path: Path) -> list[Segment]:
    """Cut an archive into segments, as a run does before its tasks begin."""
    (source,) = list_sources([str(path)])
    return segments(source)


def ours_from_tar(found: Sequence[Segment], survey: str, reader: Reader) -> list[Decoded]:
    """Decode an archive, headers included, by what the decode task uses; ``reader`` knows the headers met before."""
    columns = get_survey(survey)
    batches = itertools.chain.from_iterable(read_frames(segment, reader) for segment in found)
    return [avro.decode_frames(batch, columns.superset, columns.cutout_columns) for batch in batches]


def ours_from_memory(archive: bytes, survey: str, reader: Reader) -> Decoded:
    """Decode an archive that is in memory, headers included; ``reader`` knows the headers met before."""
    columns = get_survey(survey)
    return avro.decode_frames(frames_in_tar(archive, reader), columns.superset, columns.cutout_columns)


def read_only(found: Sequence[Segment], reader: Reader) -> int:
    """Take an archive apart without decoding; return the number of packets."""
    return sum(len(frames) for segment in found for batch in read_frames(segment, reader) for frames in batch)


def ours_from_bodies(frames: Frames, survey: str) -> Decoded:
    """Decode bodies that lie one behind the other in one buffer."""
    found = get_survey(survey)
    return avro.decode_frames([frames], found.superset, found.cutout_columns)


def joined_bodies(corpus: Corpus) -> Frames:
    """Return the bodies of a corpus in one buffer, with their schema."""
    stop = np.cumsum([len(body) for body in corpus.bodies])
    return Frames(
        np.frombuffer(b"".join(corpus.bodies), np.uint8),
        np.concatenate([[0], stop[:-1]]),
        stop,
        np.zeros(len(stop), np.int64),
        pa.nulls(len(stop), pa.string()),
        np.zeros(len(stop), np.int32),
        (HeaderCache().get(corpus.files[0]).schema,),
    )


@dataclass
class Contest:
    """The contestants for one corpus.

    Attributes
    ----------
    calls : dict of str to callable
        By name; each returns what it decoded.
    failed : dict of str to str
        Contestants that cannot take part, and why.
    kept : int
        Bytes of the values in Arrow's form, columns of other versions left out.
    """

    corpus: Corpus
    folder: Path

    def __post_init__(self) -> None:
        corpus, folder = self.corpus, self.folder
        tar = corpus.write_tar(folder / "corpus.tar")
        found, reader = cut(tar), Reader()
        archive = tar.read_bytes()
        frames = joined_bodies(corpus)
        parsed = fastavro.parse_schema(corpus.schema)
        lean = resolvable(corpus.schema)
        joined = reframe(corpus.files, corpus.header, lean)
        path = folder / "joined.avro"
        path.write_bytes(joined)

        def single() -> pa.Table:
            rows = [next(fastavro.reader(io.BytesIO(file))) for file in corpus.files]
            return pa.Table.from_pylist(rows, schema=corpus.arrow)

        def schemaless() -> pa.Table:
            rows = [fastavro.schemaless_reader(io.BytesIO(body), parsed) for body in corpus.bodies]
            return pa.Table.from_pylist(rows, schema=corpus.arrow)

        def through_file() -> pa.Table:
            path.write_bytes(reframe(corpus.files, corpus.header, lean))
            return by_datafusion(path)

        self.calls: dict[str, Callable[[], object]] = {
            "ours, tar": lambda: ours_from_memory(archive, corpus.survey, reader),
            "ours, tar read from a file": lambda: ours_from_tar(found, corpus.survey, reader),
            "cutting into segments": lambda: cut(tar),
            "ours, bodies": lambda: ours_from_bodies(frames, corpus.survey),
            "fastavro.reader": single,
            "fastavro schemaless": schemaless,
            "re-framing alone": lambda: reframe(corpus.files, corpus.header, lean),
            "polars-avro": lambda: by_polars(joined),
            "polars-avro, re-framed": lambda: by_polars(reframe(corpus.files, corpus.header, lean)),
            "datafusion": lambda: by_datafusion(path),
            "datafusion, re-framed": through_file,
        }
        self.failed: dict[str, str] = {}
        self.kept = 0

    def check(self) -> None:
        """Run every contestant once; whoever does not give fastavro's table, value for value, is out."""
        reader = self.calls["fastavro.reader"]()
        assert isinstance(reader, pa.Table)
        truth = content_hashes(reader)
        self.kept = reader.nbytes
        for name, call in list(self.calls.items()):
            try:
                made = call()
            except Exception as error:  # whatever a library raises: it cannot read this
                self._out(name, " ".join(str(error).split())[:100])
                continue
            if isinstance(made, list) and name.startswith("ours"):
                _check_ours(made, reader)
            elif isinstance(made, Decoded):
                _check_ours([made], reader)
            elif isinstance(made, pa.Table):
                differs = _differs(made, truth, self.corpus.arrow)
                if differs:
                    self._out(name, f"other values in {', '.join(differs)}"[:100])

    def _out(self, name: str, reason: str) -> None:
        assert not name.startswith(("ours", "fastavro")), f"{name}: {reason}"
        self.failed[name] = reason
        del self.calls[name]


def _differs(made: pa.Table, truth: dict[str, str], schema: pa.Schema) -> list[str]:
    if missing := [name for name in schema.names if name not in made.column_names]:
        return missing
    hashes = content_hashes(made.select(schema.names).cast(schema))
    return [name for name in truth if hashes[name] != truth[name]]


def _check_ours(made: list[Decoded], truth: pa.Table) -> None:
    """Compare our columns, which are those of all versions, with fastavro's widened to the same types."""
    assert not any(one.faults for one in made)
    for part in ("raw", "cutouts"):
        ours = pa.concat_tables([getattr(one, part) for one in made])
        names = [name for name in ours.column_names if name in truth.column_names]
        wide = {n: pa.chunked_array([widen(c, ours.schema.field(n).type) for c in truth[n].chunks]) for n in names}
        expected = pa.table(wide, schema=pa.schema([ours.schema.field(name) for name in names]))
        assert content_hashes(ours.select(names)) == content_hashes(expected)
        added = [name for name in ours.column_names if name not in names and name != "schema_version"]
        assert all(ours[name].null_count == ours.num_rows for name in added)
