from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from palmswift.data.flags import add_row_flags, template_log, with_row_flags
from palmswift.errors import ChildError, GateError, InputError
from palmswift.recipes.recipe import DataSettings


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_row_flags(parser)
    return parser.parse_args(words)


def test_flags_are_put_over_the_recipes_own_settings() -> None:
    recipe = DataSettings(columns={"query": "问", "system": "s"}, rules={"email": "mask"})
    words = ("--columns", "query=提问, response=a=b", "--rule", "email=reject")
    told = with_row_flags(recipe, flags(*words, "--rule", "secret=mask"))
    assert told.columns == {"query": "提问", "response": "a=b", "system": "s"}
    assert told.rules == {"email": "reject", "secret": "mask"}
    assert with_row_flags(recipe, flags()) == recipe


@pytest.mark.parametrize(
    "words",
    [("--columns", "query"), ("--columns", "=a,b="), ("--rule", "email"), ("--rule", "x=y")],
)
def test_flags_that_say_nothing_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        with_row_flags(DataSettings(), flags(*words))
    assert caught.value.problems


def test_the_childs_log_stays_only_when_the_child_failed() -> None:
    kept: dict[type[BaseException] | None, Path] = {}
    for kind in (None, ChildError, GateError, KeyboardInterrupt):
        try:
            with template_log() as log:
                kept[kind] = log
                log.write_text("said", encoding="utf-8")
                if kind:
                    raise kind("so")
        except (ChildError, GateError, KeyboardInterrupt):
            pass
    assert [kind for kind, log in kept.items() if log.exists()] == [ChildError]
    kept[ChildError].unlink()
    kept[ChildError].parent.rmdir()
