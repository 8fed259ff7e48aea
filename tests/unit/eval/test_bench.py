from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_eval import QUICK, ROOT, write_rows

from palmswift.errors import InputError
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.reply import Failure, Reply
from palmswift.eval.asking.timing import StreamClock
from palmswift.eval.bench import _between as between
from palmswift.eval.bench import _limits as limits
from palmswift.eval.bench import main
from palmswift.eval.fake.server import Capacity, Chunk, FakeServer, Plan
from palmswift.eval.load.bench_load import Amount, Bodies, Health, Run, Shot, closed_loop, open_loop
from palmswift.eval.load.bench_load import timetable_of as timetable
from palmswift.eval.load.bench_report import BenchReport, bench_schema
from palmswift.eval.load.bench_stats import (
    RunResult,
    estimate,
    knee,
    meets,
    objectives_of,
    result_of,
    value_of,
)

FIT = Health(lag_p99=0.001, lag_max=0.002, cpu=0.1)
DELAYS = (0.03, 0.02, 0.02)
CHUNKS = (
    Chunk(reasoning="想", delay=DELAYS[0]),
    Chunk("一", delay=DELAYS[1]),
    Chunk("二三", delay=DELAYS[2], tokens=2),
)
PLAN = Plan(chunks=CHUNKS)


def bodies(number: int) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": f"{number}"}]}


def closed(server: FakeServer, users: int, amount: Amount, asked: Bodies = bodies) -> Run:
    async def run() -> Run:
        async with Client(Endpoint(label="a", base_url=server.base_url), QUICK) as client:
            return await closed_loop(client, asked, users, amount)

    return asyncio.run(run())


def reply(arrivals: list[float], tokens: int | None, *, seconds: float | None = None) -> Reply:
    clock = StreamClock(0.0)
    for at in arrivals:
        clock.text("x", "", at)
    usage = None if tokens is None else {"completion_tokens": tokens}
    return Reply(
        *(None, "x", None, "stop", usage, None, None, None),
        seconds=seconds if seconds is not None else arrivals[-1],
        timings=clock.timings(),
        arrivals=arrivals,
        attempts=1,
    )


def test_no_time_of_a_stream_is_shorter_than_what_the_server_waited() -> None:
    with FakeServer(default=PLAN) as server:
        result = result_of(4, closed(server, 4, Amount(8, None, 0)))
    assert result.ttft is not None and result.ttfot is not None and result.itl is not None
    assert result.tpot is not None and result.e2e is not None
    assert (result.requests, result.errors, result.ttft.n, result.itl.n) == (8, 0, 8, 16)
    assert result.tokens_per_event == pytest.approx(4 / 3)
    assert result.ttft.p50 >= DELAYS[0] - 0.002
    assert result.ttfot.p50 >= result.ttft.p50
    assert result.e2e.p50 >= sum(DELAYS) - 0.002
    assert result.tpot.n == 8


def test_a_closed_loop_has_so_many_in_flight_and_counts_what_comes_after_the_warm_up() -> None:
    with FakeServer(default=Plan(delay=0.01)) as server:
        run = closed(server, 3, Amount(10, None, 4))
        assert (len(run.shots), len(server.requests), server.most_at_once) == (10, 14, 3)
        timed = closed(server, 2, Amount(None, 0.05, 0))
    assert timed.shots
    assert all(shot.sent <= 0.05 + 1 for shot in timed.shots)


def test_no_more_is_measured_than_the_server_can_serve() -> None:
    capacity = Capacity(4, 0.02, exponential=False)
    with FakeServer(capacity=capacity) as server:
        result = result_of(12, closed(server, 12, Amount(120, None, 12)))
    assert 0 < result.requests_per_second <= capacity.requests_per_second * 1.05


def test_a_timetable_is_kept_whether_or_not_answers_come_and_nothing_is_sent_early() -> None:
    async def run(url: str) -> Run:
        async with Client(Endpoint(label="a", base_url=url), QUICK) as client:
            return await open_loop(client, bodies, 200.0, Amount(40, None, 5), seed=3)

    with FakeServer(default=Plan(delay=0.5)) as server:
        done = asyncio.run(run(server.base_url))
        asked = [body["messages"][0]["content"] for body in server.requests]
    assert server.most_at_once > 5
    assert len(done.shots) == 40
    assert sorted(asked, key=int) == [str(n) for n in range(45)]
    assert all(shot.sent >= shot.due for shot in done.shots)
    assert [shot.due for shot in done.shots] == timetable(200.0, Amount(40, None, 5), "poisson", 3)[
        5:
    ]
    assert done.planned_rate is not None and done.sent_rate is not None


@given(st.floats(0.1, 1000), st.integers(1, 200), st.integers(0, 5))
def test_timetables_are_the_same_for_a_seed_and_even_when_constant(
    rate: float, count: int, seed: int
) -> None:
    amount = Amount(count, None, 0)
    drawn = timetable(rate, amount, "poisson", seed)
    assert drawn == timetable(rate, amount, "poisson", seed) == sorted(drawn)
    even = timetable(rate, amount, "constant", seed)
    assert len(drawn) == len(even) == count
    assert even == pytest.approx([n / rate for n in range(count)])


def test_a_timetable_of_many_has_the_rate_that_was_asked_for() -> None:
    times = timetable(50.0, Amount(20_000, None, 0), "poisson", 0)
    assert len(times) / times[-1] == pytest.approx(50.0, rel=0.02)
    assert timetable(10.0, Amount(None, 2.0, 0), "constant", 0)[-1] == pytest.approx(2.0)


def test_what_a_run_amounts_to_is_what_can_be_computed_by_hand() -> None:
    shots = [
        Shot(0.0, 0.0, reply([0.1, 0.2, 0.4], 5)),
        Shot(0.0, 0.0, reply([0.3, 0.5], 5)),
        Shot(0.5, 0.5, reply([0.2], 1)),
        Shot(0.6, 0.6, Failure("status", 500, "HTTP 500", 0.1, 1)),
    ]
    result = result_of(2, Run(shots, 0.7, FIT, None, None))
    assert (result.requests, result.errors, result.error_kinds) == (4, 1, {"status": 1})
    assert result.valid
    assert result.ttft is not None and result.itl is not None and result.tpot is not None
    assert result.ttft.mean == pytest.approx(0.2)
    assert result.itl.n == 3
    assert result.itl.max == pytest.approx(0.2)
    assert result.tpot.max == pytest.approx(0.3 / 4)
    assert result.tokens_per_event == pytest.approx(11 / 6)
    assert result.output_tokens_per_second == pytest.approx(11 / 0.7)
    assert value_of(result, "error_rate") == 0.25
    assert value_of(result, "ttft_p50") == pytest.approx(0.2)


def test_throughput_is_that_of_the_time_in_which_all_users_were_at_it() -> None:
    ends = [1.0 + 0.1 * n for n in range(11)]  # ten a second from the first to the last
    shots = [Shot(0, max(0.0, end - 1), reply([0.5], 1, seconds=min(end, 1.0))) for end in ends]
    drained = Shot(0, 1.95, reply([0.5], 1, seconds=5.0))
    result = result_of(10, Run([*shots, drained], 7.0, FIT, None, None))
    assert result.requests_per_second == pytest.approx(10, rel=0.06)


@pytest.mark.parametrize(
    ("health", "told"),
    [(Health(0.006, 0.1, 0.1), "6.0 ms late"), (Health(0.001, 0.1, 0.85), "85% of a core")],
)
def test_a_client_that_was_late_or_busy_marks_its_run_invalid(health: Health, told: str) -> None:
    result = result_of(1, Run([Shot(0, 0, reply([0.1], 1))], 0.1, health, None, None))
    assert not result.valid
    assert told in result.invalid_because[0]


def test_an_interval_over_runs_is_students_and_one_run_has_none() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None and found.half_width is not None
    assert (found.mean, found.runs) == (2.0, 3)
    assert found.half_width == pytest.approx(4.303 / 3**0.5)
    single = estimate([1.0])
    assert single is not None and single.half_width is None
    assert estimate([]) is None
    many = estimate([float(n % 2) for n in range(40)])
    assert many is not None and many.half_width == pytest.approx(2.2 * 0.50637 / 40**0.5, rel=1e-3)


def test_the_knee_is_the_smallest_load_with_nearly_all_of_the_throughput() -> None:
    assert knee({1: 10, 2: 19, 4: 30, 8: 32, 16: 31}) == 4
    assert knee({1: 10}) == 1
    assert knee({1: 0.0}) is None


def test_objectives_are_read_with_their_units_and_what_is_wrong_is_told_at_once() -> None:
    found = objectives_of(["ttft_p95<=500ms", "e2e_p99 = 10", "error_rate:1%", "itl_max<=0.2s"])
    assert [(o.name, o.limit) for o in found] == [
        ("ttft_p95", 0.5),
        ("e2e_p99", 10.0),
        ("error_rate", 0.01),
        ("itl_max", 0.2),
    ]
    with pytest.raises(InputError) as caught:
        objectives_of(["ttft<=1", "p95<=1", "e2e_p95<=1.2.3", "e2e_p95<=1h", "tpot_p50<=1ms"])
    assert len(caught.value.problems) == 4


def test_a_failed_request_misses_every_objective_that_does_not_tolerate_it() -> None:
    shots = [Shot(0, 0, reply([0.1], 1)), Shot(0, 0, Failure("status", 500, "", 0.1, 1))]
    result = result_of(1, Run(shots, 0.1, FIT, None, None))
    assert not meets([result], objectives_of(["ttft_p95<=1"]))
    assert meets([result], objectives_of(["ttft_p95<=1", "error_rate<=50%"]))
    assert not meets([result], objectives_of(["ttft_p95<=1", "error_rate<=49%"]))
    assert not meets([result], objectives_of(["tpot_p95<=1", "error_rate<=50%"]))


def bench(server: FakeServer, *words: str) -> int:
    return main(["--endpoint", server.base_url, *words])


def document(capsys: pytest.CaptureFixture[str]) -> BenchReport:
    return BenchReport.model_validate_json(capsys.readouterr().out)


def test_the_most_users_that_meet_an_objective_are_found_between_those_that_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A plain reply is sent after it no longer counts as in flight, so that 5 users are never 6.
    good = Plan(body=b'{"choices": [{"message": {"content": "x"}}]}', delay=0.02)

    def limited(messages: list[dict[str, Any]]) -> Plan:
        return Plan(status=503, delay=0.01) if server.in_flight > 5 else good

    with FakeServer(limited) as server:
        words = ("--concurrency", "2", "16", "--requests", "64", "--slo", "e2e_p50<=60s", "--json")
        assert bench(server, *words) in (0, 4)
    report = document(capsys)
    assert report.most_meeting_slo == 5
    assert report.least_missing_slo == 6
    assert "at most 5 users meet e2e_p50<=60s (6 do not)" in report.verdict


def test_the_exit_code_says_how_it_went(tmp_path: Path) -> None:
    few = ("--concurrency", "1", "--requests", "4")
    with FakeServer() as server:
        assert bench(server, *few, "--slo", "ttft_p50<=60s", "--search", "0") in (0, 4)
        assert bench(server, *few, "--slo", "nonsense") == 2
        assert bench(server, *few, "--warmup", "-1") == 2
        assert bench(server, *few, "--input", str(tmp_path / "missing.txt")) == 2
    with FakeServer(default=Plan(status=500)) as server:
        assert bench(server, *few) == 3
    assert bench(server, *few) == 3


def test_the_report_is_written_with_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "q.jsonl", [{"question": f"问题{n}"} for n in range(3)])
    with FakeServer(default=PLAN) as server:
        words = ("--rate", "40", "80", "--requests", "6", "--runs", "2", "--input", str(source))
        assert bench(server, *words, "--out", str(tmp_path / "out")) in (0, 4)
        assert {body["messages"][0]["content"] for body in server.requests} == {
            f"问题{n}" for n in range(3)
        }
        assert all(body["stream"] for body in server.requests)
    report = BenchReport.model_validate_json((tmp_path / "out" / "bench.json").read_bytes())
    assert [len(level.runs) for level in report.levels] == [2, 2]
    page = (tmp_path / "out" / "bench.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "src=" not in page and "href=" not in page
    assert report.verdict in page.replace("&lt;", "<")


def test_questions_without_a_file_differ_so_that_no_prefix_is_known() -> None:
    with FakeServer() as server:
        assert bench(server, "--concurrency", "2", "--requests", "20") in (0, 4)
        assert len(set(server.questions)) == len(server.requests) == 22


def test_the_committed_schema_is_what_the_report_says() -> None:
    committed = (ROOT / "eval" / "bench.schema.json").read_text(encoding="utf-8")
    assert committed == bench_schema(), "python -m palmswift.eval.load.bench_report writes it anew"
    assert json.loads(committed)["title"] == "palmswift load test"


def level(load: float, seconds: float) -> list[RunResult]:
    """One run of a load whose only answer took so long."""
    return [result_of(load, Run([Shot(0, 0, reply([seconds], 1))], seconds, FIT, None, None))]


@pytest.mark.parametrize("limit", [0.4, 1, 3, 7, 20, 64, 65, 300])
@pytest.mark.parametrize("is_open", [False, True])
def test_closing_in_on_a_limit_ends_at_it_whatever_was_tried_first(
    limit: float, is_open: bool
) -> None:
    objectives = objectives_of(["e2e_p50<=1s"])
    runs = {load: level(load, 0.5 if load <= limit else 2.0) for load in (1.0, 8.0, 64.0)}
    tried = 0
    while (load := between(runs, objectives, is_open)) is not None:
        assert load not in runs
        runs[load] = level(load, 0.5 if load <= limit else 2.0)
        tried += 1
        assert tried < 20
    met, missed = limits(runs, objectives)
    assert missed is not None
    assert (met or 0) <= limit < missed
    if is_open:
        assert missed - (met or 0) <= 0.05 * missed
    else:
        assert missed - (met or 0) == 1 or (met is None and missed == 1)
