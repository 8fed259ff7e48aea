"""Rows of Parquet and Arrow files, a few thousand cells at a time, read without `datasets`."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palmswift.data.compressed import Meter, plain_file, refusal
from palmswift.data.lines import LONGEST_ROW, too_large
from palmswift.data.row import Place, Rejection, SourceRow

PARQUET, ARROW_FILE = b"PAR1", b"ARROW1"

_BATCH_BYTES = 4 << 20
_MOST_ROWS = 512


def parquet_rows(path: Path, source: str, meter: Meter) -> Iterator[SourceRow | Rejection]:
    """The rows of a Parquet file; a row's line is its number."""
    import pyarrow.parquet

    size = path.stat().st_size
    with _told(path), plain_file(path) as plain:
        file = pyarrow.parquet.ParquetFile(plain, pre_buffer=False, buffer_size=1 << 16)
        count = file.metadata.num_rows
        groups = range(file.metadata.num_row_groups)
        held = sum(file.metadata.row_group(index).total_byte_size for index in groups)
        batch_size = _rows_at_once(held, count)
        number = 1
        for batch in file.iter_batches(batch_size):
            for row in _rows_of(batch, source, number):
                yield row
                number += 1
            meter.position = size * (number - 1) // count


def arrow_rows(path: Path, source: str, meter: Meter) -> Iterator[SourceRow | Rejection]:
    """The rows of an Arrow stream (what `save_to_disk` writes) or file (Feather)."""
    import pyarrow

    size = path.stat().st_size
    with _told(path), plain_file(path) as plain, pyarrow.OSFile(str(plain)) as stream:
        number = 1
        for batch, read in _batches(stream):
            step = _rows_at_once(batch.nbytes, batch.num_rows)
            for start in range(0, batch.num_rows, step):
                for row in _rows_of(batch.slice(start, step), source, number):
                    yield row
                    number += 1
            meter.position = int(size * read)
        meter.position = size


def _batches(stream: Any) -> Iterator[tuple[Any, float]]:
    """The batches, and which part of the file has been read with each."""
    import pyarrow

    magic = stream.read(len(ARROW_FILE))
    stream.seek(0)
    if magic == ARROW_FILE:
        file = pyarrow.ipc.open_file(stream)
        for index in range(file.num_record_batches):
            yield file.get_batch(index), (index + 1) / file.num_record_batches
    else:
        length = stream.size()
        for batch in pyarrow.ipc.open_stream(stream):
            yield batch, stream.tell() / length


def _rows_at_once(held: int, count: int) -> int:
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * count // max(held, 1)))


def _rows_of(batch: Any, source: str, first: int) -> Iterator[SourceRow | Rejection]:
    large = batch.nbytes > LONGEST_ROW
    for number, fields in enumerate(batch.to_pylist(maps_as_pydicts="lossy"), first):
        place = Place(source, number, number)
        value = {name: plain(cell) for name, cell in fields.items()}
        if large and len(text := str(value)) > LONGEST_ROW:
            yield too_large(place, text)
        else:
            yield SourceRow(place, value)


def plain(cell: Any) -> Any:
    """The cell as JSON has it: dates and decimals as text, bytes as UTF-8 text.

    Keys of a nested object without a value are left out: Arrow gives every object of a column the
    keys of all of them.
    """
    if cell is None or isinstance(cell, str | bool | int | float):
        return cell
    if isinstance(cell, dict):
        return {str(key): plain(value) for key, value in cell.items() if value is not None}
    if isinstance(cell, list | tuple):
        return [plain(value) for value in cell]
    if isinstance(cell, datetime.datetime):
        text = cell.isoformat(sep=" ")
        return text.removesuffix(" 00:00:00")
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "surrogateescape")
    return format(cell, "f") if isinstance(cell, decimal.Decimal) else str(cell)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What pyarrow cannot read becomes an InputError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        what = f"the table cannot be read: {str(error).splitlines()[0]}"
        raise refusal(str(path), what, "copy or save the file again") from None
