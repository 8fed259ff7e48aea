"""Bytes of a data file to text: the encoding is detected, a binary file is refused."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import InputError, Problem

_SAMPLE = 1 << 16

_MAGIC: dict[bytes, str] = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: save it as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV (UTF-8)",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"PAR1": "a Parquet file: save it as JSONL",
    b"%PDF": "a PDF: save the rows as CSV or JSONL",
    b"SQLite format 3": "an SQLite database: export the rows as CSV",
    b"\x7fELF": "a program",
    b"\x89PNG": "an image",
}

_BYTE_ORDER_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's mark does, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Text(NamedTuple):
    """A file's text; bytes that are no characters stand in it as lone surrogates U+DC80 to DCFF."""

    text: str
    encoding: str


def read_text(path: Path) -> Text:
    """The text of a data file.

    UTF-8 with and without byte order mark, UTF-16, UTF-32 and GB18030 are told apart.
    InputError: no such file, a folder, unreadable, empty, or binary.
    """
    data = _read_bytes(path)
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise _refusal(path, "the file is binary", f"it is {kind}")
    encoding = detect(data)
    # UTF-16 and UTF-32 have no bytes to escape to: their damage becomes U+FFFD.
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    text = data.decode(encoding, errors)
    if not text.strip():
        raise _refusal(path, "the file is empty", "give a file with rows")
    if _looks_binary(text[:_SAMPLE]):
        raise _refusal(path, "the file is binary", "give JSON, JSONL or CSV text")
    return Text(text, encoding)


def detect(data: bytes) -> str:
    """The name of the codec that reads most of `data`'s lines."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    sample = data[:_SAMPLE]
    if len(sample) >= 4 and sample.count(0) > len(sample) // 5:
        odd = sample[1::2].count(0)
        even = sample[0::2].count(0)
        if odd > 4 * even:
            return "utf-16-le"
        if even > 4 * odd:
            return "utf-16-be"
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    if not lines:
        return "utf-8"
    unicode_lines = sum(_decodes(line, "utf-8") for line in lines)
    if unicode_lines == len(lines):
        return "utf-8"
    chinese_lines = sum(_decodes(line, "gb18030") for line in lines)
    # Nearly every UTF-8 line of Chinese is by chance valid GB18030, but not the other way round.
    return "utf-8" if unicode_lines * 2 >= chinese_lines else "gb18030"


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _looks_binary(sample: str) -> bool:
    """Whether more than one character in twelve is a control character that text does not use."""
    control = sum(sample.count(chr(code)) for code in range(32) if code not in (9, 10, 12, 13, 27))
    return control * 12 > len(sample)


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise _refusal(path, "this is a folder", "give the files in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _refusal(path, "no such file", "check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _refusal(path, f"cannot be read: {reason}", "check the path") from None


def _refusal(path: Path, what: str, remedy: str) -> InputError:
    return InputError("a data file cannot be used", [Problem(what, str(path), remedy)])
