"""Words as bash itself makes them, and what only bash could know."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palmswift.recipes.shell_text import Script, read_script

_SHOW = 'show() { for word in "$@"; do printf "%s\\0" "$word"; done; printf "\\1\\0"; }\n'


def _words(script: Script) -> list[list[str]]:
    return [[word.text for word in command.words] for command in script.commands]


def _as_bash(folder: Path, text: str) -> list[list[str]]:
    """The words that bash gives to each `show` in the script."""
    path = folder / "script.sh"
    path.write_text(_SHOW + text, encoding="utf-8", newline="\n")
    done = subprocess.run(["bash", str(path)], capture_output=True, check=True, timeout=60)
    calls = done.stdout.decode().split("\1\0")[:-1]
    return [call.split("\0")[:-1] for call in calls]


@pytest.mark.parametrize(
    "text",
    [
        "show a 'b c' \"d e\" f\\ g",
        "show a \\\n  b \\\n  c",
        "X=1; show $X ${X} \"$X\" '$X'",
        "X='a b'\nshow $X \"$X\" x$X",
        'A=(a "b c"); show "${A[@]}" ${A[@]} --x="${A[@]}"',
        "A=(a)\nA+=(b\n  c # d\n)\nshow ${A[@]}",
        'A="x"; A+=y; show "$A"; show end',
        "show a#b # comment 'unclosed",
        "X=; show $X ${X:-two} ${Y:-one} ${Y-three} \"$X\" ''",
        "n=4; show $((2 * n)) $((n-1)) $(expr 32 / $n) `expr 2 \\* 3`",
        "show a; show b && show c; false || show d",
        "cat <<END > /dev/null\nshow not $this\nEND\nshow yes",
        "cat <<-'END' > /dev/null\n\tshow not\n\tEND\nshow yes",
        'show "a\\"b" "c\\$d" "e\\\\f" "g\\h" "i\\\nj"',
        "show $'a\\nb' a$ 5%",
        "show '{\"a\": 1}' --x='{\"b\": [1, 2]}'",
        "show 中文 '系统 提示'",
        "show a\r\nshow b\r\n".replace("\r", ""),
        "declare -x Z=5; show $Z",
        "show a \\\n\nshow b",
    ],
)
def test_words_are_those_that_bash_makes(tmp_path: Path, text: str) -> None:
    shown = [words[1:] for words in _words(read_script(text)) if words[0] == "show"]
    assert shown == _as_bash(tmp_path, text)


@pytest.mark.parametrize(
    "redirection",
    ["> log", "2>&1", "2>log", ">> 'a b'", "&> log", "< in", "2>&1 | tee log", "<<< text", "2>&-"],
)
def test_where_output_goes_is_no_word_of_the_command(redirection: str) -> None:
    command = read_script(f"X=1 run a {redirection}\nother").commands[0]
    assert [word.text for word in command.words] == ["run", "a"]
    assert command.redirected


_PIECES = st.one_of(
    st.text(alphabet="ab1_-=.,:/@%+", min_size=1, max_size=5),
    st.text(alphabet='a b$`"\\#;&|(){}*?\n', max_size=6).map(shlex.quote),
    st.text(alphabet="a b#;&|()'中*", max_size=6).map(lambda text: f'"{text}"'),
    st.sampled_from(["${X}", '"${X}"', '"${A[@]}"', "${A[@]}", "\\ ", "\\\\", "\\\n"]),
)
_WORDS = st.lists(_PIECES, min_size=1, max_size=3).map("".join)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(_WORDS, max_size=6), value=st.text(alphabet="ab c", max_size=5))
def test_any_quoting_is_read_as_bash_reads_it(tmp_path: Path, words: list[str], value: str) -> None:
    start = f"X={shlex.quote(value)}\nA=(one 'two three')\n"
    text = f"{start}show {' '.join(words)}\n"
    read = _words(read_script(text))
    assert [call[1:] for call in read] == _as_bash(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("run $HOME/x", "$HOME"),
        ("run ${1}", "${1}"),
        ("run $(date +%s)", "$(date +%s)"),
        ("run `date`", "`date`"),
        ("run a*.json", "*"),
        ("run $@", "$@"),
        ('run "${X%.sh}"', "${X%.sh}"),
        ("if true; then X=1; else X=2; fi\nrun $X", "$X"),
        ("run $((x + 1))", "$((x + 1))"),
    ],
)
def test_what_only_a_running_shell_knows_stays_as_it_is_written(text: str, unknown: str) -> None:
    command = read_script(text).commands[-1]
    assert command.words[-1].unknown == (unknown,)
    assert unknown in command.words[-1].text


def test_a_variable_from_outside_has_the_last_word() -> None:
    (command,) = read_script("RANK=8\nrun $RANK $OTHER", {"RANK": "16", "OTHER": "x y"}).commands
    assert [word.text for word in command.words] == ["run", "16", "x", "y"]


def test_exports_reach_every_later_command_and_prefixes_their_own() -> None:
    text = "export A=1\nC=3\nB=2 run\nexport C\nrun"
    first, second = read_script(text).commands
    assert {name: word.text for name, word in first.env.items()} == {"A": "1", "B": "2"}
    assert {name: word.text for name, word in second.env.items()} == {"A": "1", "C": "3"}


def test_each_word_and_command_knows_its_line() -> None:
    text = "# one\n\nrun a \\\n  'b\nc' \\\n  d\nother"
    run, other = read_script(text).commands
    assert [word.line for word in run.words] == [3, 3, 4, 6]
    assert other.line == 7


def test_a_command_in_a_branch_says_so_and_one_after_it_does_not() -> None:
    text = "for x in a b; do run; done\nif a; then run; fi\nf() {\n run\n}\nrun"
    commands = [c for c in read_script(text).commands if c.words[0].text == "run"]
    assert [command.conditional for command in commands] == [True, True, True, False]


@pytest.mark.parametrize("text", ["run 'a", 'run "a', "run $(a", "run ${a", "run `a", "A=(a ; b)"])
def test_a_text_that_does_not_end_is_a_fault_with_its_line(text: str) -> None:
    script = read_script(f"run first\n{text}")
    assert script.fault is not None
    assert script.commands[0].words[1].text == "first"


@given(st.text(alphabet="ab $\"'`\\(){}<>|&;#=\n+*[]!-0", max_size=40))
def test_no_text_gives_a_traceback(text: str) -> None:
    read_script(text)
