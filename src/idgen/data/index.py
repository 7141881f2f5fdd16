"""The index of a shard: a parquet table with one row per face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from .storage import exists, open_file, write_file

FORMAT = "idgen-shard-1"
REFERENCE = "reference"

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("face", pa.int32()),
        ("source", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("group", pa.string()),
        ("date", pa.string()),
        ("origin", pa.string()),
        (REFERENCE, pa.bool_()),
        ("sha256", pa.string()),
        ("suffix", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("crop_offset", pa.int64()),
        ("crop_length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("box", pa.list_(pa.float64(), 4)),
        ("landmarks", pa.list_(pa.float64(), 10)),
        ("score", pa.float64()),
        ("size", pa.float64()),
        ("sharpness", pa.float64()),
        ("yaw", pa.float64()),
        ("roll", pa.float64()),
        ("norm", pa.float64()),
        ("embedding", pa.list_(pa.float32())),
        ("thumbnail", pa.list_(pa.uint8(), 64)),
        ("dropped", pa.string()),
        ("person", pa.string()),
        ("split", pa.string()),
        ("aside", pa.string()),
        ("centre", pa.float64()),
        ("reliability", pa.float64()),
    ]
)
"""One row per face, and one row per photo without a face, with the reason in `dropped`. `offset` and `crop_offset` are
the positions of the photo and of the aligned crop in the tar. Where `reference` is False, a photo is only used as
target; where it is null, it is read as True. The last five are filled by the step over the whole set: person, split,
why the face is set aside, its cosine to the centre of the person's other photos, and how reliable its name is; see
`centre_reliability`. Sets of earlier versions have no `reliability`, `date` and `origin`."""


_TOLD = ("encoder", "dim", "fingerprint", "tar_bytes", "tar_sha256")


def index_metadata(url: str) -> dict[str, str]:
    """The metadata of a shard's index.

    Raises:
        DataError: The file is not an index of this format.
    """
    try:
        with open_file(url) as file:
            found = pq.read_schema(file).metadata or {}  # pyright: ignore[reportArgumentType]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{url}' cannot be read: {error}. Delete it and prepare again.") from error
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in found.items()}
    if metadata.get("format") != FORMAT:
        raise DataError(f"'{url}' has the format {metadata.get('format')!r}, not {FORMAT!r}. Prepare it again.")
    if not all(name in metadata for name in _TOLD) or not metadata["tar_bytes"].isdecimal():
        raise DataError(f"'{url}' must have all of {', '.join(_TOLD)}. Prepare it again.")
    return metadata


def readable_metadata(url: str) -> dict[str, str]:
    """The same; empty if there is no index, or a damaged one, which is then written again."""
    try:
        return index_metadata(url) if exists(url) else {}
    except DataError:
        return {}


def read_index(url: str, columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> pa.Table:
    """The index of a shard, see `SCHEMA`, or some of its columns; `optional` ones only where they exist."""
    try:
        with open_file(url) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if columns is not None:
                columns = [*columns, *(name for name in optional if name in parquet.schema_arrow.names)]
            table = parquet.read(None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{url}' cannot be read: {error}. Run `idgen prepare` again.") from error
    found = {field.name: field.type for field in table.schema}
    for name in {*found} & {*SCHEMA.names} if columns is None else columns:  # an older set may lack some
        if found.get(name) != SCHEMA.field(name).type:
            raise DataError(f"'{url}' has no column '{name}' of type {SCHEMA.field(name).type}. Prepare it again.")
    if REFERENCE in found:  # a file of another writer need not say it
        table = table.set_column(
            table.column_names.index(REFERENCE), SCHEMA.field(REFERENCE), table[REFERENCE].fill_null(True)
        )
    return table


def write_index(url: str, table: pa.Table) -> None:
    with write_file(url) as path:
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def usable_rows(table: pa.Table) -> np.ndarray:
    """(rows,), whether each row is a face of a person and was neither dropped nor set aside."""
    lacks = {name: table[name].is_null().to_numpy() for name in ("dropped", "aside", "person")}
    return lacks["dropped"] & lacks["aside"] & ~lacks["person"]
