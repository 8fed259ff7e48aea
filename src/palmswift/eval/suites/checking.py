"""Holds an answer to a case's assertions; what cannot be evaluated is an error, not a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from palmswift.data.languages import script_counts
from palmswift.data.private import find
from palmswift.eval.measures.metrics import PER_ANSWER, metric_of
from palmswift.eval.measures.tokens import similarity, words
from palmswift.eval.suites.assertions import (
    All,
    AnyOf,
    Assertion,
    AssertionResult,
    AtLeast,
    BertScoreBound,
    Choice,
    Contains,
    ContainsAll,
    ContainsAny,
    Exact,
    FinishReason,
    InLanguage,
    Json,
    JsonSchema,
    Latency,
    Length,
    MaxChars,
    MetricBound,
    MinChars,
    NoPii,
    NoSecrets,
    NotContains,
    Number,
    Python,
    Refusal,
    Regex,
    Similarity,
    ToolCall,
)
from palmswift.eval.suites.extract import json_in, option_of, refusal_in
from palmswift.eval.suites.numerals import numbers_in

State = Literal["passed", "failed", "error"]

_SHOWN = 80
_SCRIPT = {"zh": "Chinese", "en": "Latin", "ja": "Japanese", "ko": "Korean"}
_SCRIPT |= {"ru": "Cyrillic", "ar": "Arabic"}


class Subject(NamedTuple):
    """An answer and what is known of how it came."""

    answer: str
    """Without its thinking."""
    references: Sequence[str] = ()
    reasoning: str | None = None
    finish_reason: str | None = None
    seconds: float | None = None
    tool_calls: Sequence[dict[str, Any]] = ()
    """As the server sent them: {"function": {"name", "arguments": JSON text}}."""
    tokens: int | None = None
    """Of the whole reply, as the server counted them."""
    case: str = ""
    tags: Sequence[str] = ()
    messages: Sequence[dict[str, Any]] = ()


class Ruling(NamedTuple):
    """Whether what runs in a process of its own is content with an answer."""

    passed: bool
    detail: str | None = None


CallFunction = Callable[[Python | BertScoreBound, Subject], Ruling]
"""Calls a function of the user's own, or a model; CannotEvaluate when it cannot be called."""


class CannotEvaluate(Exception):
    """Why an assertion has no outcome."""


class _Outcome(NamedTuple):
    passed: bool
    expected: str
    detail: str | None = None
    """What was found, where the demand and the answer do not say it themselves."""


def no_functions(assertion: Python | BertScoreBound, subject: Subject) -> Ruling:
    """Stands where no functions can be called."""
    name = assertion.function if isinstance(assertion, Python) else assertion.model
    raise CannotEvaluate(f"{name}: functions and models cannot be called here")


def check(
    assertion: Assertion, subject: Subject, call: CallFunction = no_functions
) -> AssertionResult:
    """Whether the answer (compared without outer whitespace) meets `assertion`."""
    if isinstance(assertion, All | AnyOf | AtLeast):
        return _group(assertion, subject, call)
    try:
        outcome = _evaluate(assertion, subject, call)
    except CannotEvaluate as error:
        return _result(assertion, "error", _words(assertion), str(error))
    passed = outcome.passed != assertion.negate
    return _result(assertion, "passed" if passed else "failed", outcome.expected, outcome.detail)


def _result(
    assertion: Assertion,
    state: State,
    expected: str,
    detail: str | None,
    parts: Sequence[AssertionResult] = (),
) -> AssertionResult:
    return AssertionResult(
        kind=f"not {assertion.kind}" if assertion.negate else assertion.kind,
        expected=expected,
        state=state,
        detail=detail,
        weight=assertion.weight,
        parts=list(parts),
    )


def _group(group: All | AnyOf | AtLeast, subject: Subject, call: CallFunction) -> AssertionResult:
    """A group's outcome; a member's error decides it only when it could have turned it."""
    parts = [check(member, subject, call) for member in group.of]
    held = sum(part.passed for part in parts)
    errors = sum(part.state == "error" for part in parts)
    needed = len(parts) if isinstance(group, All) else 1
    if isinstance(group, AtLeast):
        needed = group.count
    state: State = "failed"
    if held >= needed:
        state = "passed"
    elif held + errors >= needed:
        state = "error"
    if group.negate and state != "error":
        state = "failed" if state == "passed" else "passed"
    members = "; ".join(f"{part.kind} {part.expected}".strip() for part in parts)
    detail = f"{held} held" + (f", {errors} could not be evaluated" if errors else "")
    return _result(group, state, f"{needed} of {len(parts)}: {members}", detail, parts)


def _evaluate(assertion: Assertion, subject: Subject, call: CallFunction) -> _Outcome:
    text = subject.answer.strip()
    match assertion:
        case Exact() | Contains() | ContainsAny() | ContainsAll() | NotContains() | Regex():
            return _texts(assertion, text, subject)
        case Json() | JsonSchema():
            return _json(assertion, text)
        case Number():
            return _number(assertion, text)
        case Choice(value=value, options=options):
            chosen = option_of(text, options)
            return _Outcome(chosen == value, value, f"it chose {chosen or 'none'}")
        case Length() | MaxChars() | MinChars():
            return _length(assertion, text, subject)
        case InLanguage(value=language, share=least):
            counts = script_counts(text)
            total = sum(counts.values())
            if not total:
                return _Outcome(False, language, "there are no words")
            share = counts[_SCRIPT[language]] / total
            return _Outcome(share >= least, f"{language} >= {least:.0%}", f"{share:.0%}")
        case Refusal():
            said = refusal_in(text)
            return _Outcome(said is not None, "a refusal", said or "it does not decline")
        case NoPii(kinds=kinds, allow=allow):
            return _leaks(text, kinds, allow, [])
        case NoSecrets(values=values, allow=allow):
            return _leaks(text, ["secret"], allow, values)
        case ToolCall():
            return _tool_call(assertion, subject)
    return _measured(assertion, text, subject, call)


def _texts(
    assertion: Exact | Contains | ContainsAny | ContainsAll | NotContains | Regex,
    text: str,
    subject: Subject,
) -> _Outcome:
    def fold(words: str) -> str:
        return words.casefold() if assertion.ignore_case else words

    match assertion:
        case Exact(value=value):
            targets = [value] if value is not None else _references(subject)
            passed = fold(text) in [fold(target.strip()) for target in targets]
            return _Outcome(passed, " | ".join(targets))
        case Regex(pattern=pattern, whole=whole):
            flags = re.IGNORECASE if assertion.ignore_case else 0
            search = re.fullmatch if whole else re.search
            return _Outcome(search(pattern, text, flags) is not None, pattern)
        case ContainsAll(values=values):
            missing = [value for value in values if fold(value) not in fold(text)]
            said = f"without {', '.join(missing)}" if missing else None
            return _Outcome(not missing, " & ".join(values), said)
        case ContainsAny(values=values):
            passed = any(fold(value) in fold(text) for value in values)
            return _Outcome(passed, " | ".join(values))
        case NotContains(value=value):
            return _Outcome(fold(value) not in fold(text), value)
        case Contains(value=value):
            return _Outcome(fold(value) in fold(text), value)


def _json(assertion: Json | JsonSchema, text: str) -> _Outcome:
    expected = "JSON"
    if isinstance(assertion, JsonSchema):
        expected = json.dumps(assertion.json_schema, ensure_ascii=False)
        expected = f"{expected[:_SHOWN]}…" if len(expected) > _SHOWN else expected
    try:
        value = json_in(text, strict=assertion.strict)
    except ValueError as error:
        return _Outcome(False, expected, str(error))
    if isinstance(assertion, Json):
        return _Outcome(True, expected)
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    validator = validator_for(assertion.json_schema)
    try:  # an empty registry: no $ref is fetched from the network
        found = best_match(
            validator(assertion.json_schema, registry=EMPTY_REGISTRY).iter_errors(value)
        )
    except Unresolvable as error:
        raise CannotEvaluate(f"the schema's $ref {error.ref} is not in it") from error
    said = f"{found.json_path}: {found.message[:200]}" if found else None
    return _Outcome(found is None, expected, said)


def _number(assertion: Number, text: str) -> _Outcome:
    found = numbers_in(text)
    bound = max(assertion.tolerance, abs(assertion.value) * assertion.relative)
    expected = f"{assertion.value:.15g}" + (f" ± {bound:g}" if bound > 1e-9 else "")
    if not found:
        return _Outcome(False, expected, "there is no number")
    chosen = {"last": found[-1:], "first": found[:1], "any": found}[assertion.which]
    passed = any(
        # The bound itself is within: 0.1 + 0.2 is 0.3 with a tolerance of 0.
        abs(value - assertion.value) <= bound + 1e-12 * abs(assertion.value)
        for number in chosen
        for value in number.values
    )
    return _Outcome(passed, expected, " | ".join(number.text for number in chosen[:5]))


def _length(assertion: Length | MaxChars | MinChars, text: str, subject: Subject) -> _Outcome:
    match assertion:
        case MaxChars(value=limit):
            return _Outcome(len(text) <= limit, f"<= {limit} characters", str(len(text)))
        case MinChars(value=limit):
            return _Outcome(len(text) >= limit, f">= {limit} characters", str(len(text)))
        case Length(unit="chars"):
            size = len(text)
        case Length(unit="words"):
            size = len(words(text))
        case Length(unit="lines"):
            size = sum(bool(line.strip()) for line in text.splitlines())
        case _:
            if subject.tokens is None:
                raise CannotEvaluate("the server did not say how many tokens the answer has")
            if subject.reasoning:
                raise CannotEvaluate("the server counts the thinking's tokens with the answer's")
            size = subject.tokens
    return _bounded(size, assertion.min, assertion.max, assertion.unit, f"{size}")


def _leaks(
    text: str, kinds: Sequence[str], allow: Sequence[str], values: Sequence[str]
) -> _Outcome:
    """Fails for what must not be there; the answer itself is not repeated in the result."""
    found = [
        f"{item.code} {text[item.start : item.start + 3]}…"
        for item in find(text)
        if item.code in kinds
        and not any(text[item.start : item.end] in allowed for allowed in allow)
    ]
    packed = "".join(text.split()).casefold()
    found += [
        f"the text {value[:3]}…" for value in values if "".join(value.split()).casefold() in packed
    ]
    return _Outcome(not found, f"no {', '.join(kinds)}", "; ".join(found) or None)


def _tool_call(assertion: ToolCall, subject: Subject) -> _Outcome:
    wanted = assertion.arguments
    expected = assertion.name if wanted is None else f"{assertion.name}({_compact(wanted)})"
    told = []
    for call in subject.tool_calls:
        function = call.get("function") or {}
        name, arguments = function.get("name"), function.get("arguments") or "{}"
        told.append(f"{name}({arguments if isinstance(arguments, str) else _compact(arguments)})")
        if name != assertion.name:
            continue
        if wanted is None:
            return _Outcome(True, expected, told[-1])
        try:
            given = json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError:
            continue
        if not isinstance(given, dict) or (
            assertion.exact_arguments and given.keys() != wanted.keys()
        ):
            continue
        if all(key in given and given[key] == value for key, value in wanted.items()):
            return _Outcome(True, expected, told[-1])
    return _Outcome(False, expected, "; ".join(told) or "no tool was called")


def _measured(assertion: Assertion, text: str, subject: Subject, call: CallFunction) -> _Outcome:
    match assertion:
        case Similarity(min=least, value=value):
            targets = [value] if value is not None else _references(subject)
            found = max(similarity(text, target.strip()) for target in targets)
            return _Outcome(found >= least, f">= {least:g}", f"{found:.3f}")
        case MetricBound(name=name, min=low, max=high):
            needed = _references(subject) if PER_ANSWER[name].needs_reference else ()
            found = PER_ANSWER[name].function(text, needed)
            digits = 1 if metric_of(name).scale == "hundred" else 3
            return _bounded(found, low, high, name, f"{found:.{digits}f}")
        case Latency(max=most):
            if subject.seconds is None:
                raise CannotEvaluate("it was not noted how long the answer took")
            return _Outcome(subject.seconds <= most, f"<= {most:g} s", f"{subject.seconds:.2f} s")
        case FinishReason(value=value):
            if subject.finish_reason is None:
                raise CannotEvaluate("the server gave no finish_reason")
            return _Outcome(subject.finish_reason == value, value, subject.finish_reason)
        case Python(function=function):
            ruling = call(assertion, subject)
            return _Outcome(ruling.passed, function, ruling.detail)
        case BertScoreBound(min=least):
            _references(subject)
            ruling = call(assertion, subject)
            return _Outcome(ruling.passed, f"BERTScore >= {least:g}", ruling.detail)
    raise AssertionError(assertion.kind)


def _references(subject: Subject) -> Sequence[str]:
    if not subject.references:
        raise CannotEvaluate("the case has no reference to compare with")
    return subject.references


def _bounded(
    value: float, low: float | None, high: float | None, name: str, shown: str
) -> _Outcome:
    passed = (low is None or value >= low) and (high is None or value <= high)
    bounds = [f">= {low:g}"] if low is not None else []
    bounds += [f"<= {high:g}"] if high is not None else []
    return _Outcome(passed, f"{name} {' and '.join(bounds)}", shown)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _words(assertion: Assertion) -> str:
    """The demand in words where there is no outcome to say it."""
    fields = assertion.model_dump(
        by_alias=True, exclude_defaults=True, exclude={"kind", "weight", "negate"}
    )
    return ", ".join(f"{name} {value}" for name, value in fields.items())
