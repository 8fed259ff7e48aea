"""Suites in whatever form they are written: ours, or that part of promptfoo's that ours can say."""

from __future__ import annotations

from pathlib import Path

from palmswift.eval.suites.suite import Suite, load_suite


def read_suite(path: Path) -> Suite:
    """The suite of a YAML file; InputError with all that is wrong or not supported, by line."""
    from palmswift.eval.suites.document import read_yaml
    from palmswift.eval.suites.promptfoo import is_promptfoo, promptfoo_suite

    document = read_yaml(path)
    if is_promptfoo(document.value):
        return promptfoo_suite(document)
    return load_suite(path)
