"""The command to talk with served models: interactive, one question, or a file of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import INTERRUPTED, InputError, PalmswiftError
from palmswift.eval.asking.asking import find_model
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.talk import Talk, Turn, ask
from palmswift.eval.batch import read_inputs
from palmswift.eval.chat_screen import Screen, SideBySide
from palmswift.eval.flags import (
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
)
from palmswift.eval.loop import run_interruptible
from palmswift.eval.suites.case_file import add_case

_HELP = """\
/reset         forget the conversation
/retry         take the last answer back and ask the same again
/system TEXT   set the system prompt and forget the conversation
/model         show the models; /model NAME talks with that one, /model all with all
/save FILE     FILE.yaml: add the last turn to a suite as a test case, its answer as reference
               FILE.jsonl: add the conversation as one row of messages
/quit          leave; so does Ctrl-D. Ctrl-C stops an answer, not the chat"""

_EXAMPLES = """
python eval/chat.py --endpoint http://127.0.0.1:8000/v1
python eval/chat.py --endpoint base=http://127.0.0.1:8001 --endpoint tuned=http://127.0.0.1:8000
python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --input 周一上班吗？
python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --file questions.txt --fresh
echo 你好 | python eval/chat.py --endpoint http://127.0.0.1:8000/v1 --system 你是客服。
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Talk; 0 the end was reached, 3 the endpoint failed."""
    parser = make_parser(
        "eval/chat.py",
        "Talk with a served model; answers stream in. Two --endpoint answer side by side.\n\n"
        f"In the chat:\n{_HELP}",
        _EXAMPLES,
    )
    add_endpoint_flags(parser, several=True)
    parser.add_argument("--system", help="the system prompt")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--input", metavar="TEXT", help="ask this one question and leave")
    asked.add_argument("--file", type=Path, help="ask the questions of a file in turn (.txt, ...)")
    parser.add_argument(
        "--fresh", action="store_true", help="with --file: a new conversation for each question"
    )
    add_sampling_flags(parser, max_tokens=1024)
    return run(parser, _body, argv)


class Chat:
    """The conversations with all models, and with which of them one talks now."""

    def __init__(self, talks: Sequence[Talk], console: Console) -> None:
        self.talks = list(talks)
        self.active = list(talks)
        self.console = console
        self.screen = SideBySide(console) if len(talks) > 1 else Screen(console)

    def ask(self, question: str) -> list[Turn]:
        """Ask the active models and show what comes."""
        self.screen.begin([talk.label for talk in self.active])
        turns: list[Turn] = []
        try:
            turns = ask(self.active, question, self.screen.show)
        finally:
            self.screen.end(turns)
        return turns

    def obey(self, line: str) -> list[Turn]:
        """Carry out a `/command`; the turns that it made."""
        word, _, rest = line.partition(" ")
        rest, note = rest.strip(), self.console.note
        if word == "/help":
            note(_HELP)
        elif word == "/reset":
            for talk in self.talks:
                talk.reset(talk.system)
            note("(forgotten)")
        elif word == "/system" and rest:
            for talk in self.talks:
                talk.reset(rest)
            note("(system prompt set, conversation forgotten)")
        elif word == "/model":
            self._choose(rest)
        elif word == "/retry":
            return self._again()
        elif word == "/save" and rest:
            self._save(rest)
        else:
            note(f"no command {line!r}\n{_HELP}")
        return []

    def _again(self) -> list[Turn]:
        questions = [talk.take_back() for talk in self.active]
        question = next((found for found in questions if found is not None), None)
        if question is None:
            self.console.note("(nothing to ask again)")
            return []
        return self.ask(question)

    def _choose(self, name: str) -> None:
        """Talk with one of the labels or all, or with another model of the same server."""
        labels = [talk.label for talk in self.talks]
        if name in ("all", "both"):
            self.active = list(self.talks)
        elif name in labels and len(labels) > 1:
            self.active = [talk for talk in self.talks if talk.label == name]
        elif name or len(labels) == 1:
            for talk in self.active:
                served = run_interruptible(_models(talk))
                if name in served:
                    talk.model = name
                elif name or len(labels) == 1:
                    self.console.note(f"{talk.label} serves: {', '.join(served)}")
        for talk in self.talks:
            mark = "*" if talk in self.active else " "
            self.console.note(f"{mark} {talk.label}: {talk.model} at {talk.endpoint.base_url}")

    def _save(self, words: str) -> None:
        """Save as a case or as a row; `words` is a file, with a label where several answer."""
        name, _, label = words.rpartition(" ")
        chosen = [talk for talk in self.active if talk.label == label] if name else []
        path = Path(name if chosen else words)
        if not chosen and len(self.active) > 1:
            labels = " or ".join(talk.label for talk in self.active)
            self.console.note(f"(whose answer? /save {path} {labels})")
            return
        messages = (chosen or self.active)[0].messages
        if not messages or messages[-1]["role"] != "assistant":
            self.console.note("(nothing to save yet)")
            return
        try:
            if path.suffix in (".yaml", ".yml"):
                case = add_case(path, messages[:-1], messages[-1]["content"])
                self.console.note(f"(saved to {path} as the case {case})")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        except (OSError, InputError) as error:
            self.console.note(f"(not saved: {error})")
        else:
            self.console.note(f"(saved to {path})")


async def _models(talk: Talk) -> list[str]:
    async with Client(talk.endpoint, talk.policy) as client:
        return await client.models()


def _body(args: argparse.Namespace, console: Console) -> Done:
    if not args.endpoint:
        raise InputError("which server?", remedy="--endpoint http://127.0.0.1:8000/v1")
    endpoints = endpoints_of(args, args.endpoint, "chat")
    questions = _given_questions(args)
    policy = policy_of(args)
    talks = [
        Talk(
            endpoint,
            run_interruptible(find_model(endpoint, policy)),
            sampling_of(args),
            policy,
            args.system,
        )
        for endpoint in endpoints
    ]
    chat = Chat(talks, console)
    # Ctrl-C at the prompt only warns; a request to end the process must end the chat.
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _leave)
    turns: list[Turn] = []
    if questions is None:
        for talk in talks:
            console.note(f"{talk.model} at {talk.endpoint.base_url}; /help lists commands")
        turns = list(_interactive(chat))
    for question in questions or []:
        if args.fresh:
            for talk in talks:
                talk.reset(args.system)
        if args.file is not None:
            print(f"> {question}", file=chat.screen.stream)
        answered = chat.ask(question)
        turns += answered
        _refuse(answered)
        if any(turn.stopped for turn in answered):
            raise KeyboardInterrupt
    document = {
        "model": talks[0].model,
        "models": {talk.label: talk.model for talk in talks},
        "turns": [{**turn._asdict(), "error": turn.error and str(turn.error)} for turn in turns],
    }
    return Done(document, 4 if any(turn.answer is None for turn in turns) and questions else 0)


def _refuse(turns: Sequence[Turn]) -> None:
    """Raise what every model failed with."""
    errors = [turn.error for turn in turns if turn.error is not None]
    if errors and len(errors) == len(turns):
        raise errors[0]


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


def _interactive(chat: Chat) -> Iterator[Turn]:
    """Read lines until the end; a failed request is told and the chat goes on."""
    for line in _typed(chat.console):
        if line == "/quit":
            return
        try:
            turns = chat.obey(line) if line.startswith("/") else chat.ask(line)
        except PalmswiftError as error:
            chat.console.note(f"error: {error}")
            if not sys.stdin.isatty():
                raise
            continue
        yield from turns
        if not sys.stdin.isatty():
            _refuse(turns)


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


if __name__ == "__main__":
    raise SystemExit(main())
