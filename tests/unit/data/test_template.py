from __future__ import annotations

from pathlib import Path

import pytest
from support_data import conversation, pair

from palmswift.data.reasons import REASONS
from palmswift.data.template import TemplateFacts, TemplateSpec, Verdict, judge
from palmswift.errors import ChildError

FACTS = TemplateFacts(
    template="qwen3",
    max_length=128,
    truncation_strategy="delete",
    loss_scale="default",
    swift_version="4.6.0",
)
TRAINS = Verdict(index=0, n_tokens=30, n_supervised=5, has_text=True, ends_with_eos=True)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"n_tokens": 300, "error": "MaxLengthError"}, "over_length", "300 tokens > max_length"),
        ({"error": "TypeError", "detail": "odd"}, "template_error", "TypeError: odd"),
        ({"control_token": "<|x|>"}, "control_tokens", "<|x|>"),
        ({"n_supervised": 0, "ends_with_eos": False}, "zero_supervised_tokens", "0 of 30"),
        ({"n_supervised": 2, "has_text": False}, "no_supervised_text", "2 supervised"),
        ({"ends_with_eos": False}, "no_eos", "cut"),
    ],
)
def test_a_verdict_has_the_reason_why_the_row_does_not_train(
    change: dict[str, object], code: str, told: str
) -> None:
    reason = TRAINS.model_copy(update=change).reason(FACTS)
    assert reason is not None
    assert reason[0] == code and told in reason[1]
    assert code in REASONS


def test_a_row_that_trains_has_no_reason() -> None:
    assert TRAINS.reason(FACTS) is None


def test_a_child_that_fails_is_told_by_its_error_and_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "swift"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no swift here')\n")
    log = tmp_path / "logs" / "data.log"
    spec = TemplateSpec(
        arguments={"model": str(tmp_path)}, env={"PYTHONPATH": str(tmp_path / "broken")}
    )
    with pytest.raises(ChildError) as caught:
        judge([conversation(pair("q", "a"))], spec, log=log)
    told = str(caught.value)
    assert "ImportError: no swift here" in told and str(log) in told
    assert "Traceback" not in told
    assert "Traceback" in log.read_text()
