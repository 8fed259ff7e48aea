"""Brings a training home: launches it again, smaller or later, when its failure can be mended."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple, TypeVar

from palmswift.command import Console
from palmswift.errors import ChildError, InputError
from palmswift.files import write_text
from palmswift.launchers.checkpoint_survey import survey
from palmswift.launchers.diagnosis import Diagnosis, diagnose
from palmswift.launchers.ladder import Climb, Situation, climb
from palmswift.launchers.machine import conditions_here
from palmswift.launchers.run_folder import RunFolder, checkpoints
from palmswift.launchers.taking_up import take_up
from palmswift.launchers.verdict import Verdict
from palmswift.plan.lengths import read_lengths
from palmswift.recipes.load import resolved_yaml
from palmswift.recipes.recipe import Recipe

Result = TypeVar("Result")

TRANSIENT = ("network", "file_system")
"""Failures that may be gone a little later."""

OUT_OF_ROOM = ("disk_full", "disk_quota")
"""Failures that leave a half-written checkpoint, which takes the room that is wanted."""

OUT_OF_MEMORY = ("out_of_memory", "gpu_in_use")
"""Failures after which less memory is taken."""

BACKOFF_SECONDS = (5.0, 20.0, 60.0)
"""How long is waited before a transient failure is tried again; the last one holds for the rest."""


class Launching(NamedTuple):
    """What a recovery does with a run."""

    launch: Callable[[Recipe, Path | None], Verdict]
    """Train the recipe, from a checkpoint or from the start, and judge what it left."""
    plan_again: Callable[[], None]
    """Judge the rows again where they have to be, and write plan.json anew."""


def train_until_it_ends(
    run: RunFolder, launching: Launching, console: Console, earlier: list[dict[str, Any]]
) -> tuple[Verdict, list[dict[str, Any]]]:
    """The last verdict, and all attempts as they stand in run.json (`earlier` ones first).

    At most `recovery.attempts` launches. Out of memory changes the recipe (recipe.recovered.yaml in
    the run folder), a transient failure is waited for; all else, an interruption too, is final.
    """
    attempts = list(earlier)
    recipe, changes = run.training_recipe, list[str]()
    allowed = run.recipe.recovery.attempts
    if earlier:
        _note_attempts(run, attempts)
    for number in range(1, allowed + 1):
        kept = take_up(run, console)
        if not kept:
            # An attempt that left no checkpoint: its log would be read as this one's.
            shutil.rmtree(run.training, ignore_errors=True)
        begun = time.monotonic()
        verdict = launching.launch(recipe, kept[-1] if kept else None)
        if verdict.failure is not None and verdict.failure.kind in OUT_OF_ROOM:
            _clear_half_written(run, console)
        begin = kept[-1].name if kept else None
        attempt = {"number": len(attempts) + 1, "changes": changes, "resumed_from": begin}
        attempts.append({**attempt, **_ending(verdict, time.monotonic() - begun)})
        _note_attempts(run, attempts)
        if verdict.failure is None or number == allowed or run.stop_asked:
            return verdict, attempts
        if verdict.failure.kind in TRANSIENT:
            _wait(run, console, verdict.failure, number)
            changes = []
            continue
        climbed = _climb(run, recipe, verdict.failure)
        if climbed is None:
            return verdict, attempts
        recipe, changes = climbed.recipe, climbed.changes
        where = _prepare(run, climbed)
        because = f"now {', '.join(changes)} ({', '.join(climbed.reasons)}), {where}"
        _tell(run, console, f"{number + 1} of {allowed}: {verdict.failure.cause}; {because}")
        if climbed.renews_data:
            run.state.stages["data"].state = "interrupted"  # with other rows than it is to have
        launching.plan_again()
    raise AssertionError("a recovery has at least one attempt")


def with_patience(
    run: RunFolder, log: Path, console: Console, work: Callable[[], Result]
) -> Result:
    """What `work` gives, whose child writes to `log`; again where that failed by a transient fault.

    `ChildError` when it fails otherwise, or too often; with the cause and the remedy where they are
    known.
    """
    allowed = run.recipe.recovery.attempts
    for number in range(1, allowed + 1):
        start = log.stat().st_size if log.is_file() else 0
        try:
            return work()
        except ChildError as error:
            found = diagnose(log, 1, start=start)
            if found.kind in TRANSIENT and number < allowed:
                _wait(run, console, found, number)
            elif found.kind == "unknown":
                raise
            else:
                summary = f"{error.summary}: {found.cause} ({found.kind})"
                raise ChildError(summary, error.problems, remedy=found.remedy) from error
    raise AssertionError("there is at least one attempt")


def _clear_half_written(run: RunFolder, console: Console) -> None:
    """Remove what the disk had no room for; checkpoints torn before were set aside already."""
    for found in survey(run.training):
        if found.fault:
            shutil.rmtree(found.path, ignore_errors=True)
            _remark(run, console, f"{found.path.name} did not fit on the disk: it is removed")


def _remark(run: RunFolder, console: Console, text: str) -> None:
    console.note(f"note     {text}")
    run.events.note("disk", text)


def _wait(run: RunFolder, console: Console, failure: Diagnosis, number: int) -> None:
    wait = BACKOFF_SECONDS[min(number, len(BACKOFF_SECONDS)) - 1]
    allowed = run.recipe.recovery.attempts
    _tell(run, console, f"{number + 1} of {allowed} in {wait:.0f} s: {failure.cause}")
    sleep(wait)


def _tell(run: RunFolder, console: Console, text: str) -> None:
    console.note(f"retry    {text}")
    run.events.note("retry", text)


def _ending(verdict: Verdict, seconds: float) -> dict[str, Any]:
    """How an attempt ended, for run.json."""
    failure = verdict.failure
    outcome = failure.kind if failure else "done"
    return {
        "steps": verdict.steps,
        "outcome": f"{outcome} ({failure.phase})" if failure and failure.phase else outcome,
        "cause": failure.cause if failure else "",
        "seconds": round(seconds, 1),
    }


def _note_attempts(run: RunFolder, attempts: list[dict[str, Any]]) -> None:
    """Keep them in run.json now, so that a crash loses none; one that went well is not worth it."""
    if len(attempts) > 1 or attempts[0]["outcome"] != "done":
        run.state.stages["train"].facts["attempts"] = attempts
        run.save()


def _climb(run: RunFolder, recipe: Recipe, failure: Diagnosis) -> Climb | None:
    if failure.kind not in OUT_OF_MEMORY:
        return None
    try:
        lengths = read_lengths(str(run.data / "report.json"))
    except InputError:  # of another version
        lengths = None
    situation = Situation(
        phase=failure.phase,
        has_checkpoint=bool(checkpoints(run.training)),
        conditions=conditions_here(recipe, lengths),
        lengths=lengths,
    )
    return climb(recipe, situation)


def _prepare(run: RunFolder, climbed: Climb) -> str:
    """Write the changed recipe down, and clear what it cannot go on from; where it begins."""
    write_text(run.recovered_recipe, resolved_yaml(climbed.recipe))
    kept = checkpoints(run.training)
    if not kept:
        return "from the start"
    if climbed.keeps_checkpoint:
        return f"from {kept[-1].name}"
    aside = _free_name(run.path)
    run.training.rename(aside)
    return f"from the start, for {kept[-1].name} does not fit it any more (kept in {aside.name}/)"


def _free_name(folder: Path) -> Path:
    numbers = (folder / f"train-before-{number}" for number in range(1, 1000))
    return next(path for path in numbers if not path.exists())
