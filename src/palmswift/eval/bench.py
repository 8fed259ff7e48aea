"""The command that measures latency and throughput of a served model under load."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.flags import (
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    positive,
    whole,
)
from palmswift.eval.load.bench_load import Amount, Arrivals, Bodies, closed_loop, open_loop
from palmswift.eval.load.bench_report import (
    HTML_NAME,
    BenchReport,
    cells,
    headings,
    level_of,
    unit,
    write_bench,
)
from palmswift.eval.load.bench_stats import (
    Objective,
    RunResult,
    estimate,
    knee,
    meets,
    objectives_of,
    result_of,
)
from palmswift.eval.loop import run_interruptible

_EXAMPLES = """
python eval/bench.py --endpoint http://127.0.0.1:8000/v1 --concurrency 1 8 32
python eval/bench.py --endpoint http://127.0.0.1:8000/v1 --rate 1 2 4 8 --seconds 30
python eval/bench.py --endpoint URL --concurrency 1 8 32 --slo "ttft_p95<=500ms" "e2e_p95<=10s"
python eval/bench.py --endpoint URL --concurrency 16 --input questions.txt --runs 3 --out bench
"""

_PROMPTS = (
    "请用三句话介绍一下你自己。",
    "诊所周末几点开门？需要提前预约吗？",
    "Explain in a few sentences why the sky is blue.",
    "Write a short, polite reply to a customer whose parcel is late.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 done, 1 no load meets the objectives, 3 the endpoint failed, 4 INVALID."""
    parser = make_parser(
        "eval/bench.py",
        "Measure a served model under load. --concurrency: so many users at once, each of whom\n"
        "asks again when the answer is there. --rate: so many requests a second, by a timetable.\n"
        "Requests are streamed and not sent again when they fail.",
        _EXAMPLES,
    )
    add_endpoint_flags(parser)
    loads = parser.add_mutually_exclusive_group(required=True)
    loads.add_argument("--concurrency", type=whole, nargs="+", metavar="USERS")
    loads.add_argument("--rate", type=positive, nargs="+", metavar="PER_SECOND")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--requests", type=whole, metavar="N", help="of a run; default: 10 a user, at least 50"
    )
    amount.add_argument("--seconds", type=positive, metavar="S", help="of a run, instead")
    parser.add_argument(
        "--warmup", type=int, default=None, metavar="N", help="requests before those that count"
    )
    parser.add_argument(
        "--runs", type=whole, default=1, metavar="N", help="of every load, in turn (1)"
    )
    parser.add_argument("--slo", nargs="+", default=[], metavar="OBJECTIVE")
    parser.add_argument(
        "--search", type=int, default=5, metavar="N", help="further loads to find the limit (5)"
    )
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--seed", type=int, default=0, help="of the timetable (0)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="questions, as eval/batch.py's")
    add_sampling_flags(parser, max_tokens=128)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.html")
    return run(parser, _body, argv)


class Load(NamedTuple):
    """What is put on the server, but for how much at once."""

    endpoint: Endpoint
    policy: RetryPolicy
    bodies: Bodies
    open: bool
    args: argparse.Namespace

    def amount(self, load: float) -> Amount:
        """How long one run goes on."""
        args = self.args
        warmup = args.warmup if args.warmup is not None else (0 if self.open else int(load))
        if args.seconds is not None:
            return Amount(None, args.seconds, warmup)
        wanted = args.requests or max(50, int(10 * load))
        return Amount(wanted, None, warmup)

    def once(self, load: float, number: int) -> RunResult:
        """One run; its number makes it differ from the others of the same load."""
        return run_interruptible(self._once(load, number))

    async def _once(self, load: float, number: int) -> RunResult:
        async with Client(self.endpoint, self.policy) as client:
            if not self.open:
                done = await closed_loop(client, self.bodies, int(load), self.amount(load))
            else:
                arrivals: Arrivals = self.args.arrivals
                done = await open_loop(
                    client,
                    self.bodies,
                    load,
                    self.amount(load),
                    arrivals=arrivals,
                    seed=self.args.seed + number,
                )
        return result_of(load, done)


def _body(args: argparse.Namespace, console: Console) -> Done:
    objectives = objectives_of(args.slo)
    if (args.warmup or 0) < 0 or args.search < 0:
        raise InputError("--warmup and --search cannot be negative")
    [endpoint] = endpoints_of(args, [args.endpoint], "bench")
    policy = RetryPolicy(attempts=1, total=args.timeout, first_byte=args.timeout)
    model = run_interruptible(_model(endpoint, policy))
    request = {"max_tokens": args.max_tokens, "temperature": args.temperature, **endpoint.extra}
    bodies = _bodies(args.input, model, request)
    load = Load(endpoint, policy, bodies, args.rate is not None, args)
    runs = _sweep(load, objectives, console)
    report = _report(load, model, request, runs, objectives)
    _show(report, console)
    if args.out is not None:
        write_bench(report, args.out)
        console.say(f"report: {args.out / HTML_NAME}")
    return Done(report.model_dump(mode="json"), _exit_code(report))


async def _model(endpoint: Endpoint, policy: RetryPolicy) -> str:
    async with Client(endpoint, policy) as client:
        return await client.model()


def _bodies(path: Path | None, model: str, request: dict[str, Any]) -> Bodies:
    """The requests. Without a file each has a number in front, so that no server can answer from a
    prefix that it knows."""
    if path is None:
        conversations = None
    else:
        from palmswift.eval.asking.batch_input import InputFile

        file = InputFile(path)
        survey = file.survey()
        if survey.form == "openai":
            raise InputError(f"{path}: an OpenAI batch file has requests, not questions")
        conversations = [item.messages for item in itertools.islice(file.inputs("rows"), 10_000)]
    serial = itertools.count()

    def body(number: int) -> dict[str, Any]:
        if conversations is not None:
            messages = conversations[number % len(conversations)]
        else:
            text = f"[{next(serial)}] {_PROMPTS[number % len(_PROMPTS)]}"
            messages = [{"role": "user", "content": text}]
        return {"model": model, "messages": messages, **request}

    return body


def _sweep(
    load: Load, objectives: Sequence[Objective], console: Console
) -> dict[float, list[RunResult]]:
    """The runs of every load: those asked for, in turn, then those that close in on the limit."""
    args = load.args
    loads = sorted(dict.fromkeys(float(each) for each in args.rate or args.concurrency))
    runs: dict[float, list[RunResult]] = {each: [] for each in loads}
    for number in range(args.runs):
        for each in loads:
            runs[each].append(_told(load.once(each, number), console))
            _refuse_silence(runs)
    if objectives:
        for _ in range(args.search):
            between = _between(runs, objectives, load.open)
            if between is None:
                break
            runs[between] = [_told(load.once(between, n), console) for n in range(args.runs)]
    return dict(sorted(runs.items()))


def _told(result: RunResult, console: Console) -> RunResult:
    """Say how a run went."""
    errors = f", {result.errors} failed" if result.errors else ""
    console.note(f"{result.load:g}: {result.requests_per_second:.2f} requests/s{errors}")
    return result


def _refuse_silence(runs: dict[float, list[RunResult]]) -> None:
    """ChildError when the server has answered nothing so far: more load would not help."""
    done = [result for each in runs.values() for result in each]
    if all(result.errors == result.requests for result in done):
        raise ChildError(f"all {done[0].requests} requests failed: {done[0].first_error}")


def _limits(
    runs: dict[float, list[RunResult]], objectives: Sequence[Objective]
) -> tuple[float | None, float | None]:
    """The largest load below which all met the objectives, and the smallest that did not."""
    met: float | None = None
    for load in sorted(runs):
        if not meets(runs[load], objectives):
            return met, load
        met = load
    return met, None


def _between(
    runs: dict[float, list[RunResult]], objectives: Sequence[Objective], is_open: bool
) -> float | None:
    """The next load to try: halfway to the limit, or double; None when it is known well enough."""
    met, missed = _limits(runs, objectives)
    if missed is None:
        return None if met is None else 2 * met
    low = met if met is not None else 0.0
    middle = (low + missed) / 2
    if not is_open:
        middle = float(int(middle))
    known = missed - low <= (0.05 * missed if is_open else 1)
    return None if known or middle <= 0 or middle in runs else middle


def _report(
    load: Load,
    model: str,
    request: dict[str, Any],
    runs: dict[float, list[RunResult]],
    objectives: Sequence[Objective],
) -> BenchReport:
    levels = [
        level_of(each, done, meets(done, objectives) if objectives else None)
        for each, done in runs.items()
    ]
    throughput = {
        each: found.mean
        for each, done in runs.items()
        if (found := estimate([result.requests_per_second for result in done])) is not None
    }
    met, missed = _limits(runs, objectives) if objectives else (None, None)
    valid = all(level.valid for level in levels)
    bend = knee(throughput)
    report = BenchReport(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        base_url=load.endpoint.base_url,
        model=model,
        loop="open" if load.open else "closed",
        arrivals=load.args.arrivals if load.open else None,
        request=request,
        valid=valid,
        knee=bend,
        slo=[objective.text for objective in objectives],
        most_meeting_slo=met,
        least_missing_slo=missed,
        verdict="",
        levels=levels,
    )
    return report.model_copy(update={"verdict": _verdict(report, throughput)})


def _verdict(report: BenchReport, throughput: dict[float, float]) -> str:
    """The whole test in one line."""
    name = unit(report)
    parts = []
    if report.knee is not None:
        served = f"({throughput[report.knee]:.2f} requests/s)"
        if report.knee < max(throughput):
            parts.append(f"knee at {report.knee:g} {name} {served}")
        else:
            parts.append(f"no knee up to {report.knee:g} {name} {served}")
    if report.slo:
        wanted = ", ".join(report.slo)
        if report.most_meeting_slo is None:
            parts.append(f"no load that was tried meets {wanted}")
        elif report.least_missing_slo is None:
            parts.append(f"{report.most_meeting_slo:g} {name} and perhaps more meet {wanted}")
        else:
            missed = f"{report.least_missing_slo:g} do not"
            parts.append(f"at most {report.most_meeting_slo:g} {name} meet {wanted} ({missed})")
    reasons = [r for level in report.levels for one in level.runs for r in one.invalid_because]
    if reasons:
        parts.insert(0, f"INVALID: {reasons[0]}; give the client more of the processor")
    return "; ".join(parts) or "nothing was served"


def _exit_code(report: BenchReport) -> int:
    if not report.valid:
        return 4
    return 1 if report.slo and report.most_meeting_slo is None else 0


def _show(report: BenchReport, console: Console) -> None:
    """Print the table and the verdict."""
    import sys

    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(title="times in milliseconds", title_justify="left", title_style="dim")
    for heading in headings(report):
        table.add_column(heading, justify="right")
    for level in report.levels:
        table.add_row(*cells(report, level))
    stream = sys.stderr if console.json_output else sys.stdout
    RichConsole(file=stream, width=None if stream.isatty() else 160).print(table)
    console.say(report.verdict)


if __name__ == "__main__":
    raise SystemExit(main())
