"""The file of one batch's records: Parquet with a checksum of all its bytes, so that a damaged one is noticed.

The footer's metadata have ``perturb_tutorial: records 1 sha256 <64 digits>``, the SHA-256 of the file in which these
digits are zeros. pandas and all other readers of Parquet read the file as any other; its pages have Parquet's own
checksums as well.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from perturb_tutorial.places import Place
from perturb_tutorial.reading import read_bytes

KEY, FORMAT = "perturb_tutorial", 1
LARGEST = 4_000
"""MB of the largest part that is read."""

_UNSIGNED = "0" * 64
_SIGNATURE = re.compile(rb"records (\d+) sha256 ([0-9a-f]{64})")


class DamagedPart(ValueError):
    """A part that is not as it was written; the message says what is wrong with it."""


def packed(rows: Sequence[Mapping[str, Any]], schema: Any) -> bytes:
    """The bytes of the file with ``rows``; ``schema``: Arrow's."""
    arrow, parquet = _modules()
    signed = schema.with_metadata({KEY: f"records {FORMAT} sha256 {_UNSIGNED}"})
    table = arrow.Table.from_pylist([dict(row) for row in rows], schema=signed)
    file = io.BytesIO()
    parquet.write_table(table, file, write_page_checksum=True)
    content = file.getvalue()
    found = _signature(content)
    if found is None:
        raise RuntimeError("pyarrow wrote a file without the metadata that it was given")
    return content[: found.start(2)] + _digest(content, found).encode() + content[found.end(2) :]


def unpacked(path: Place) -> tuple[Any, bool]:
    """The Arrow table in the file ``path``, and whether it has a checksum; one of an earlier version has none.

    Raises:
        OSError: where it cannot be read.
        DamagedPart: where it is not as it was written.
    """
    arrow, parquet = _modules()
    content = read_bytes(path, LARGEST)
    found = _signature(content)
    if found is not None and found[2].decode() != _digest(content, found):
        raise DamagedPart("its checksum is not that of its content")
    if found is not None and int(found[1]) != FORMAT:
        raise DamagedPart(f"its format is {int(found[1])}, this version reads {FORMAT}")
    try:
        table = parquet.read_table(arrow.BufferReader(content), page_checksum_verification=True)
        table.validate(full=True)
    except Exception as error:  # whatever pyarrow's many readers raise
        raise DamagedPart(f"it is no whole Parquet file: {' '.join(str(error).split())[:200]}") from error
    return table.replace_schema_metadata(None), found is not None


def _modules() -> tuple[Any, Any]:
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet


def _signature(content: bytes) -> re.Match[bytes] | None:
    """The last one: the footer is at the end, after whatever the records hold."""
    found = list(_SIGNATURE.finditer(content))
    return found[-1] if found else None


def _digest(content: bytes, found: re.Match[bytes]) -> str:
    sha = hashlib.sha256(content[: found.start(2)])
    sha.update(_UNSIGNED.encode())
    sha.update(content[found.end(2) :])
    return sha.hexdigest()
