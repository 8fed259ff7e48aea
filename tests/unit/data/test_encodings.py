from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.data.encodings import BLOCK, TextSource, read_text
from palmswift.errors import InputError

CHINESE = '{"query": "几点开门？", "response": "早上八点，周一休诊。"}\n'


@pytest.mark.parametrize(
    ("codec", "named"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("utf-32-le", "utf-32-le"),
        ("utf-32-be", "utf-32-be"),
        ("gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("count", [3, 40_000])
def test_the_encoding_is_found_and_the_text_is_whole(
    tmp_path: Path, codec: str, named: str, count: int
) -> None:
    path = tmp_path / "f"
    # ASCII keys, as data files have them, are what tells UTF-16 without a mark from other bytes.
    path.write_bytes((CHINESE * count).encode(codec))
    assert read_text(path) == (CHINESE * count, named)


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_the_encoding_is_found_where_the_first_chinese_stands_behind_megabytes(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "f"
    text = '{"query": "when?"}\n' * (2 * BLOCK // 19) + CHINESE * 3
    path.write_bytes(text.encode(codec))
    assert read_text(path) == (text, codec)


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_one_line_of_chinese_that_is_broken_somewhere_does_not_change_the_encoding(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "f"
    line = CHINESE.strip().encode(codec)
    path.write_bytes(b",".join([line, line, b'{"q": "\xff"}', line]))
    text, encoding = read_text(path)
    assert encoding == codec
    assert text.count("几点开门？") == 3


def test_one_broken_line_does_not_change_the_encoding_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CHINESE.encode() * 3 + b"\xff\xfe broken\n" + CHINESE.encode())
    text, encoding = read_text(path)
    assert encoding == "utf-8"
    assert text.count("几点开门？") == 4
    assert "\udcff\udcfe broken" in text


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_a_broken_byte_megabytes_into_the_file_costs_that_line_only(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "f"
    good = (CHINESE * (2 * BLOCK // 60)).encode(codec)
    path.write_bytes(good + b"\xff\xff\n" + good)
    text, encoding = read_text(path)
    assert encoding == codec
    lines = text.split("\n")
    assert set(lines) == {CHINESE.strip(), "\udcff\udcff", ""}


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_damage_to_wide_characters_stays_visible(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "f"
    broken = {"utf-16-le": b"\x00\xd8", "utf-16-be": b"\xd8\x00", "utf-32-le": b"\xff" * 4}[codec]
    path.write_bytes(CHINESE.encode(codec) * 3 + broken + ("\n" + CHINESE).encode(codec))
    text, _ = read_text(path)
    assert text.count(CHINESE.strip()) == 4
    assert any("\udc00" <= character <= "\udcff" for character in text)


def test_lines_that_end_in_carriage_returns_alone_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"query,response\ra,b\rc,d\r")
    assert read_text(path).text == "query,response\na,b\nc,d\n"


def test_the_meter_goes_from_nothing_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(CHINESE * 50_000)
    source = TextSource(path)
    positions = [source.meter.position for _ in source.blocks()]
    assert positions == sorted(positions)
    assert 0 < positions[0] < positions[-1] == path.stat().st_size
    next(iter(source.blocks()))
    assert source.meter.position < path.stat().st_size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t\r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xfe\xff", "empty"),
        (b"PK\x03\x04whatever", "zip"),
        (b"\xd0\xcf\x11\xe0whatever", "old Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08whatever", "archive is broken"),
        (bytes(range(256)) * 8, "binary"),
        (b"\x00\x01\x02\x03" * 64, "binary"),
    ],
)
def test_what_is_not_text_is_refused_with_what_it_is(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="directory"):
        read_text(tmp_path)
