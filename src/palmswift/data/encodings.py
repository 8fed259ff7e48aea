"""The text of a data file, block by block: the encoding is detected, a binary file is refused."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from palmswift.data.compressed import Meter, refusal, unpacked

BLOCK = 1 << 20
"""Bytes read and decoded at a time."""

_SAMPLE = 1 << 16
_LARGEST_EVIDENCE = 4 << 20
_ENOUGH_EVIDENCE = 64

_MAGIC: dict[bytes, str] = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save it as .xlsx or CSV (UTF-8)",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"%PDF": "a PDF: save its text as .txt, or rows as CSV or JSONL",
    b"SQLite format 3": "an SQLite database: export the rows as CSV",
    b"\x7fELF": "a program",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}

_BYTE_ORDER_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's mark does, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# None of these bytes is a part of a longer GB18030 or UTF-8 character.
_BETWEEN_WORDS = re.compile(rb'[\n\r\t ",:]+')

_ESCAPE = "palmswift.escape"


def _escape(error: UnicodeError) -> tuple[str, int]:
    """`surrogateescape` for UTF-16 and UTF-32, whose broken bytes may also be below 0x80."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    broken = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in broken), error.end


codecs.register_error(_ESCAPE, _escape)


class TextSource:
    """A file's text; bytes that are no characters stand in it as lone surrogates U+DC00 to DCFF."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meter = Meter()
        self.encoding = "utf-8"
        """`utf-8` also as long as all that was read is ASCII."""

    def blocks(self) -> Iterator[str]:
        """The text in pieces of about a mebibyte; the encoding is decided where it first matters.

        Lines that end in CR alone end in LF here. InputError: no such file, unreadable, binary, or
        an archive that breaks off.
        """
        with unpacked(self.path, self.meter) as stream:
            yield from self._decoded(stream)

    def _decoded(self, stream: IO[bytes]) -> Iterator[str]:
        data = stream.read(BLOCK)
        self._refuse_binary(data)
        sample = data[:_SAMPLE]
        carriage_returns = b"\r" in sample and b"\n" not in sample
        named = _by_mark(sample) or _by_zeros(sample)
        while named is None and data:
            if not data.isascii():
                data = _evidence(data, stream)
                named = detect(data)
                break
            yield _with_newlines(data.decode("ascii"), carriage_returns)
            data = stream.read(BLOCK)
        self.encoding = named or "utf-8"
        wide = self.encoding.startswith(("utf-16", "utf-32"))
        errors = _ESCAPE if wide else "surrogateescape"
        decoder = codecs.getincrementaldecoder(self.encoding)(errors)
        while data:
            text = decoder.decode(data)
            if text:
                yield _with_newlines(text, carriage_returns)
            data = stream.read(BLOCK)
        if rest := decoder.decode(b"", final=True):
            yield rest

    def _refuse_binary(self, data: bytes) -> None:
        for magic, kind in _MAGIC.items():
            if data.startswith(magic):
                raise refusal(str(self.path), "the file is binary", f"it is {kind}")
        sample = data[:_SAMPLE]
        named = _by_mark(sample) or _by_zeros(sample)
        if _looks_binary(sample.decode(named or "latin-1", "replace")):
            raise refusal(str(self.path), "the file is binary", "give JSON, JSONL, CSV or text")


class Text(NamedTuple):
    """A whole file's text, and the encoding it was in."""

    text: str
    encoding: str


def read_text(path: Path) -> Text:
    """The text of a file that is known to be small.

    InputError: no such file, a folder, unreadable, empty, or binary.
    """
    source = TextSource(path)
    text = "".join(source.blocks())
    if not text.strip("\ufeff \t\r\n"):
        raise refusal(str(path), "the file is empty", "give a file with rows")
    return Text(text, source.encoding)


def detect(data: bytes) -> str:
    """The name of the codec that reads most of `data`'s words; `data` may end in the middle."""
    named = _by_mark(data) or _by_zeros(data[:_SAMPLE])
    if named:
        return named
    words = _foreign_words(data)
    unicode_words = sum(_decodes(word, "utf-8") for word in words)
    if unicode_words == len(words):
        return "utf-8"
    chinese_words = sum(_decodes(word, "gb18030") for word in words)
    # Nearly every UTF-8 word of Chinese is by chance valid GB18030, but not the other way round.
    return "utf-8" if unicode_words * 2 >= chinese_words else "gb18030"


def _by_mark(data: bytes) -> str | None:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    return None


def _by_zeros(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, told by where the zero bytes of its ASCII stand."""
    zeros = [sample[place::4].count(0) for place in range(4)]
    if len(sample) < 4 or sum(zeros) <= len(sample) // 5:
        return None
    most, few = len(sample) // 4 * 9 // 10, len(sample) // 16
    if min(zeros[2:]) >= most and zeros[0] <= few:
        return "utf-32-le"
    if min(zeros[:2]) >= most and zeros[3] <= few:
        return "utf-32-be"
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if odd > 4 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 4 * odd else None


def _evidence(data: bytes, stream: IO[bytes]) -> bytes:
    """`data`, read on until there are words enough to tell the encoding by."""
    found = len(_foreign_words(data))
    while len(data) < _LARGEST_EVIDENCE and found < _ENOUGH_EVIDENCE:
        more = stream.read(BLOCK)
        if not more:
            break
        found += len(_foreign_words(more))
        data += more
    return data


def _foreign_words(data: bytes) -> list[bytes]:
    """The words that are not ASCII, without one that the end of `data` may have cut."""
    words = _BETWEEN_WORDS.split(data)
    whole = words[:-1] if len(words) > 1 else words
    return [word for word in whole if not word.isascii()]


def _decodes(word: bytes, encoding: str) -> bool:
    try:
        word.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _with_newlines(text: str, carriage_returns: bool) -> str:
    return text.replace("\r", "\n") if carriage_returns else text


def _looks_binary(sample: str) -> bool:
    """Whether more than one character in twelve is a control character that text does not use."""
    control = sum(sample.count(chr(code)) for code in range(32) if code not in (9, 10, 12, 13, 27))
    return control * 12 > len(sample)
