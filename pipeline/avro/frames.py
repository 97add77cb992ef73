"""Packets whose bodies lie in one buffer: what the readers of dumps and streams hand to the decoder.

A batch of packets costs a handful of arrays, not an object a packet; a body is never copied before it is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.avro.container import Fault
from pipeline.avro.schema import WriterSchema

NO_SCHEMA = -1


@dataclass(frozen=True, slots=True)
class Frames:
    """Consecutive packets of a source, in its order; all arrays have the same length n.

    Attributes
    ----------
    data : numpy.ndarray
        uint8: the buffer that holds the bodies. Its owner may fill it anew once the next frames are asked for.
    start, stop : numpy.ndarray
        int64 (n,): extent of each Avro body in ``data``; both 0 for a fault.
    offset : numpy.ndarray
        int64 (n,): where the body starts in its member or file (in a compressed block: where the block's data starts);
        a fault's own offset.
    member : pyarrow.Array
        string (n,): name within the archive or folder, null where the source is one file.
    schema : numpy.ndarray
        int32 (n,): place of the writer schema in ``schemas``, :data:`NO_SCHEMA` for a fault.
    schemas : tuple of WriterSchema
        Those met.
    faults : mapping of int to Fault
        By place: what could not be taken apart.
    """

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    offset: NDArray[np.int64]
    member: pa.Array
    schema: NDArray[np.int32]
    schemas: tuple[WriterSchema, ...]
    faults: Mapping[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)

    def body(self, place: int) -> bytes:
        """Return the body of one packet, or the bytes of a fault."""
        if place in self.faults:
            return self.faults[place].body
        return self.data[self.start[place] : self.stop[place]].tobytes()

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of every body or faulty stretch, int64 (n,)."""
        out = self.stop - self.start
        for place, fault in self.faults.items():
            out[place] = fault.length
        return out
