"""The command to talk with a served model: interactive, one question, or a file of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import INTERRUPTED, InputError, PalmswiftError
from palmswift.eval.asking import find_model
from palmswift.eval.batch import read_inputs
from palmswift.eval.client import Client
from palmswift.eval.endpoint import Endpoint
from palmswift.eval.engine import Sampling
from palmswift.eval.flags import (
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
)
from palmswift.eval.loop import run_interruptible
from palmswift.eval.retry import RetryPolicy
from palmswift.eval.think import Piece, ThinkStream, split_think

_HELP = """\
/reset         forget the conversation
/system TEXT   set the system prompt and forget the conversation
/save FILE     add the conversation to FILE as one row of messages (JSONL)
/quit          leave; so does Ctrl-D. Ctrl-C stops an answer, not the chat"""

_EXAMPLES = """
python eval/chat.py --endpoint http://127.0.0.1:8000/v1
python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --input 周一上班吗？
python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --file questions.txt --fresh
echo 你好 | python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --system 你是客服。
"""


class Turn(NamedTuple):
    """One question and what came back."""

    question: str
    answer: str | None
    """None when nothing was answered: the thinking never ended, or the answer was stopped."""
    reasoning: str | None
    finish_reason: str | None
    first_token_seconds: float | None
    """Until the first text, thinking included."""
    seconds: float
    stopped: bool
    """By Ctrl-C; then the turn is not part of the conversation."""


class Conversation:
    """A conversation with one model; the thinking of earlier answers is not sent again."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        sampling: Sampling,
        policy: RetryPolicy,
        system: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.sampling = sampling
        self.policy = policy
        self.reset(system)

    def reset(self, system: str | None) -> None:
        """Begin anew."""
        self.system = system
        self.messages: list[dict[str, str]] = (
            [{"role": "system", "content": system}] if system is not None else []
        )

    def ask(self, question: str, show: Callable[[Piece], None]) -> Turn:
        """Ask, giving each piece to `show` as it comes; an answer becomes part of the history.

        ChildError when the request fails; the history is then as it was before.
        """
        parts: list[str] = []
        apart: list[str] = []
        asked = {"role": "user", "content": question}
        started = time.perf_counter()
        try:
            finish_reason, first = run_interruptible(
                self._stream([*self.messages, asked], parts, apart, show)
            )
            stopped = False
        except KeyboardInterrupt as stop:
            if signal.SIGTERM in stop.args:
                raise
            finish_reason, first, stopped = None, None, True
        seconds = time.perf_counter() - started
        answer, reasoning = split_think("".join(parts), "".join(apart))
        if answer is not None and not stopped:
            self.messages += [asked, {"role": "assistant", "content": answer}]
        return Turn(question, answer, reasoning, finish_reason, first, seconds, stopped)

    async def _stream(
        self,
        messages: list[dict[str, str]],
        parts: list[str],
        apart: list[str],
        show: Callable[[Piece], None],
    ) -> tuple[str | None, float | None]:
        """Fill `parts` and `apart`; gives the finish reason and the seconds to the first text."""
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.sampling.max_tokens,
            "temperature": self.sampling.temperature,
            **self.endpoint.extra,
        }
        splitter = ThinkStream()
        finish_reason, first = None, None
        started = time.perf_counter()
        async with Client(self.endpoint, self.policy) as client:
            async for delta in client.stream(body):
                if first is None and (delta.content or delta.reasoning):
                    first = time.perf_counter() - started
                parts.append(delta.content)
                apart.append(delta.reasoning)
                finish_reason = delta.finish_reason or finish_reason
                if delta.reasoning:
                    show(Piece("reasoning", delta.reasoning))
                for piece in splitter.feed(delta.content):
                    show(piece)
        for piece in splitter.close():
            show(piece)
        return finish_reason, first


class Screen:
    """Prints an answer while it comes; thinking is dim on a terminal and left out elsewhere."""

    def __init__(self, console: Console) -> None:
        self.stream = sys.stderr if console.json_output else sys.stdout
        self.colour = self.stream.isatty()
        self._kind = "answer"

    def show(self, piece: Piece) -> None:
        """Print one piece."""
        if piece.kind == "reasoning" and (not self.colour or not piece.text.strip()):
            return
        if self.colour and piece.kind != self._kind:
            self.stream.write("\x1b[2m" if piece.kind == "reasoning" else "\x1b[0m\n")
        self._kind = piece.kind
        self.stream.write(piece.text)
        self.stream.flush()

    def end(self, turn: Turn) -> None:
        """End the answer's line, and say why if there is none."""
        if self.colour and self._kind == "reasoning":
            self.stream.write("\x1b[0m")
        self._kind = "answer"
        self.stream.write("\n")
        if turn.stopped:
            print("(stopped; this turn is not kept)", file=sys.stderr)
        elif turn.answer is None:
            print("(no answer: the thinking never ended; raise --max-tokens)", file=sys.stderr)
        elif turn.finish_reason == "length":
            print("(cut at --max-tokens)", file=sys.stderr)
        self.stream.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Talk; 0 the end was reached, 3 the endpoint failed."""
    parser = make_parser(
        "eval/chat.py",
        f"Talk with a served model; answers stream in.\n\nIn the chat:\n{_HELP}",
        _EXAMPLES,
    )
    add_endpoint_flags(parser)
    parser.add_argument("--system", help="the system prompt")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--input", metavar="TEXT", help="ask this one question and leave")
    asked.add_argument("--file", type=Path, help="ask the questions of a file in turn (.txt, ...)")
    parser.add_argument(
        "--fresh", action="store_true", help="with --file: a new conversation for each question"
    )
    add_sampling_flags(parser, max_tokens=1024)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    [endpoint] = endpoints_of(args, [args.endpoint], "chat")
    questions = _given_questions(args)
    policy = policy_of(args)
    model = run_interruptible(find_model(endpoint, policy))
    talk = Conversation(endpoint, model, sampling_of(args), policy, args.system)
    screen = Screen(console)
    # Ctrl-C at the prompt only warns; a request to end the process must end the chat.
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _leave)
    turns: list[Turn] = []
    if questions is None:
        console.note(f"{model} at {endpoint.base_url}; /help lists commands")
        turns = list(_interactive(talk, screen, console))
    for question in questions or []:
        if args.fresh:
            talk.reset(args.system)
        if args.file is not None:
            print(f"> {question}", file=screen.stream)
        turn = talk.ask(question, screen.show)
        screen.end(turn)
        turns.append(turn)
        if turn.stopped:
            raise KeyboardInterrupt
    document = {"model": model, "turns": [turn._asdict() for turn in turns]}
    return Done(document, 4 if any(turn.answer is None for turn in turns) and questions else 0)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(INTERRUPTED)


def _given_questions(args: argparse.Namespace) -> list[str] | None:
    """The questions of `--input` or `--file`; None: the user types them."""
    if args.input is not None:
        if not args.input.strip():
            raise InputError("--input is empty")
        return [args.input]
    if args.file is not None:
        return [item.case.turns[-1].content for item in read_inputs(args.file)]
    return None


def _interactive(talk: Conversation, screen: Screen, console: Console) -> Iterator[Turn]:
    """Read lines until the end; a failed request is told and the chat goes on."""
    for line in _typed(console):
        if line.startswith("/"):
            if line == "/quit":
                return
            _obey(line, talk, console)
            continue
        try:
            turn = talk.ask(line, screen.show)
        except PalmswiftError as error:
            console.note(f"error: {error}")
            if not sys.stdin.isatty():
                raise
            continue
        screen.end(turn)
        yield turn


def _typed(console: Console) -> Iterator[str]:
    """What is typed, line by line; Ctrl-C twice in a row leaves."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with contextlib.suppress(ImportError):  # gives input() its line editing and history
        import readline  # noqa: F401
    warned = False
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if warned:
                raise
            warned = True
            console.note("\n(Ctrl-C again, Ctrl-D or /quit to leave)")
            continue
        warned = False
        if line:
            yield line


def _obey(line: str, talk: Conversation, console: Console) -> None:
    """Carry out a `/command`."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word == "/help":
        console.note(_HELP)
    elif word == "/reset":
        talk.reset(talk.system)
        console.note("(forgotten)")
    elif word == "/system" and rest:
        talk.reset(rest)
        console.note("(system prompt set, conversation forgotten)")
    elif word == "/save" and rest:
        _save(talk.messages, Path(rest), console)
    else:
        console.note(f"no command {line!r}\n{_HELP}")


def _save(messages: list[dict[str, Any]], path: Path, console: Console) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        console.note("(nothing to save yet)")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    except OSError as error:
        console.note(f"(not saved: {error})")
    else:
        console.note(f"(saved to {path})")


if __name__ == "__main__":
    raise SystemExit(main())
