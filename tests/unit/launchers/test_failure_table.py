"""The page of failures is the one that the code would write."""

from __future__ import annotations

import inspect
import re

from palmswift.launchers import loss_history, verdict
from palmswift.launchers.failure_table import JUDGED, with_tables
from palmswift.launchers.failures import FAILURES
from palmswift.paths import project_root


def test_the_committed_page_has_every_class_as_it_is() -> None:
    page = (project_root() / "docs" / "failures.md").read_text(encoding="utf-8")
    assert with_tables(page) == page
    for failure in FAILURES:
        assert f"| `{failure.kind}` |" in page
    assert "{" not in re.sub(r"`[^`]*`", "", page.partition("## Recovery")[0])


def test_every_class_that_is_judged_after_the_end_is_explained() -> None:
    sources = "".join(map(inspect.getsource, (loss_history, verdict)))
    assert set(re.findall(r'(?:Finding|Diagnosis)\(\s*"(\w+)"', sources)) == set(JUDGED)


def test_no_class_stands_twice() -> None:
    kinds = [failure.kind for failure in FAILURES]
    assert len(kinds) == len(set(kinds))
