"""What ended a program is told from all else that its log holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.tracebacks import read_log

TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in outer
    inner()
    ~~~~~^^
  File "b.py", line 2, in inner
    raise ValueError(text)
ValueError: two
lines"""


def _lines(text: str) -> list[str]:
    return text.split("\n")


def test_an_exception_comes_with_its_whole_message_and_its_calls() -> None:
    text = TRACEBACK.replace('two\nlines")', 'two")')
    (raised,) = read_log(_lines(text)).raised
    assert raised.said == "ValueError: two\nlines"
    assert [(call.file, call.function) for call in raised.frames] == [
        ("a.py", "outer"),
        ("b.py", "inner"),
    ]


def test_a_chain_comes_with_its_first_cause_first() -> None:
    text = (
        "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'x'\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "b.py", line 1, in g\nRuntimeError: late'
    )
    assert [raised.said for raised in read_log(_lines(text)).raised] == [
        "KeyError: 'x'",
        "RuntimeError: late",
    ]


def test_what_ms_swift_survived_did_not_end_it() -> None:
    text = (
        "Map:   0%|          | 0/9 [00:00<?]\n[INFO:swift] Traceback (most recent call last):\n"
        '  File "a.py", line 1, in encode\nIndexError: gone\n\n'
        "[WARNING:swift] There are errors in the dataset, the data will be deleted"
    )
    reading = read_log(_lines(text))
    assert reading.raised == ()
    assert [raised.said for raised in reading.survived] == ["IndexError: gone"]


def test_a_row_that_is_shown_did_not_end_it_either() -> None:
    shown = "[INFO:swift] [INPUT] tell me of this:\n" + TRACEBACK
    after = "[INFO:swift] [LABELS] and so on\n{'loss': '2.1', 'global_step/max_steps': '1/2'}"
    assert read_log(_lines(f"{shown}\n{after}")).raised == ()


def test_the_error_of_one_rank_counts_though_another_goes_on() -> None:
    ranked = "\n".join(f"[rank1]: {line}" for line in _lines(TRACEBACK))
    text = f"Train:  1%|▏ | 1/9 [00:01<00:08]{ranked}\n{{'loss': '2.1'}}"
    assert [raised.name for raised in read_log(_lines(text)).raised] == ["ValueError"]


RAY = """Traceback (most recent call last):
  File "sft.py", line 20, in <module>
    sft_main()
ray.exceptions.RayTaskError(Apart): \x1b[36mray::SwiftSft.run()\x1b[39m (pid=17196, ip=192.0.2.2)
           ^^^^^^^^^^^^^^^^^^^^^
  File "one_training.py", line 56, in require_others
    raise Apart(what)
_swift_external_c11c5cb3.Apart: one_training: 2 processes were started
\x1b[36m(SwiftSft pid=17195)\x1b[0m [INFO:swift] Global seed set to 42"""


def test_an_exception_of_rays_worker_counts_though_another_worker_prints_after_it() -> None:
    (raised,) = read_log(_lines(RAY)).raised
    assert raised.said == "Apart: one_training: 2 processes were started"
    assert raised.frames[-1] == ("one_training.py", "require_others")


def test_without_a_traceback_the_last_line_of_an_error_counts() -> None:
    assert [raised.said for raised in read_log(["begun", "OSError: one", "x"]).raised] == [
        "OSError: one"
    ]
    assert read_log(["an Error: of no class", "it said ValueError: x"]).raised == ()


@given(st.lists(st.sampled_from([*_lines(TRACEBACK), "[INFO:swift] on", "[rank0]: x", ""])))
def test_any_lines_can_be_read(lines: list[str]) -> None:
    reading = read_log(lines)
    assert all(raised.name for raised in (*reading.raised, *reading.survived))
