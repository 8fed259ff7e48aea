"""How many rows a second are judged, against ms-swift's own encode and the bare tokenizer.

python benchmarks/data/template.py

All three take the very same rows in turn, in rounds, in one process: `Template.encode` (without
its three tries for a bad row); our verdicts, with the rows checked by the template, and with the
rows coming and the verdicts going as files; and `encode_batch_fast` on the rows' rendered text.
Every verdict is compared with that of `Template.encode`. The record is
benchmarks/records/data-template-DATE.json.

The tokenizer has Qwen3's size and rules; it is made once, in models/, in some minutes, from a seed
and nothing else. Words are made of syllables and of Chinese characters and drawn as in real text, a
few often and most seldom, so that the tokenizer finds about a token a word, as Qwen3's does.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

# Before ms-swift is imported; TemplateJudge sets the same for its child.
os.environ.update(
    TOKENIZERS_PARALLELISM="true",
    CUDA_VISIBLE_DEVICES="",
    MODELSCOPE_OFFLINE="1",
    HF_HUB_OFFLINE="1",
)

from palmswift.data.batch_tokenizer import WORTH
from palmswift.data.quick_bpe import quick_bpe
from palmswift.data.template import TemplateSpec, WorkerSpec
from palmswift.data.template_wire import CHUNK, ChunkFolder
from palmswift.data.template_worker import SWITCH_SECONDS, Examiner

ROOT = Path(__file__).resolve().parents[2]
MAX_LENGTH = 2048
SIZES = {90: 10_000, 500: 3_000}
"""Tokens a row, about, to the number of rows."""

ENTRIES = 151_936
"""Rows of Qwen3's embedding matrix."""

PRETOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen3 divides text into words (transformers, tokenization_qwen2.py)."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>")

_WORDS = 200_000
_SENTENCES = 400_000
_CONSONANTS = (
    "b",
    "c",
    "ch",
    "d",
    "f",
    "g",
    "h",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "w",
)
_VOWELS = ("a", "e", "i", "o", "u", "ea", "ou", "er", "in", "on")

Rows = Sequence[dict[str, Any]]


class Seconds(NamedTuple):
    """What something took, of the clock and of all cores together."""

    wall: float
    cpu: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the record; 1 when a verdict differs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "benchmark-tokenizer")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    if not (arguments.model / "config.json").is_file():
        build_model(arguments.model)
    ours, real = (_examiner(arguments.model, batched=batched) for batched in (True, False))
    sys.setswitchinterval(SWITCH_SECONDS)
    setup = _warm_up(ours)
    cases = [_measure(ours, real, tokens, rows, arguments.rounds) for tokens, rows in SIZES.items()]
    record = _record(cases, ours, arguments.rounds, setup)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"data-template-{record['date']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for case in cases:
        print(json.dumps(case))
    print(path)
    return 1 if any(case["verdicts_that_differ"] for case in cases) else 0


def _examiner(model: Path, *, batched: bool) -> Examiner:
    template = TemplateSpec(
        arguments={
            "model": str(model),
            "model_type": "qwen3",
            "template": "qwen3",
            "max_length": MAX_LENGTH,
        }
    )
    return Examiner(
        WorkerSpec(template=template, kind="sft", over_length="reject", samples=0, batched=batched)
    )


def _warm_up(ours: Examiner) -> float:
    """Have tiktoken set up, as large data does; how many seconds that takes."""
    writer = Writer(seed=3)
    ours.verdicts([writer.row(1000) for _ in range(WORTH // 2000)])
    return _timed(lambda: quick_bpe(ours.tokenizer.backend_tokenizer)).wall


def _measure(
    ours: Examiner, real: Examiner, tokens: int, count: int, rounds: int
) -> dict[str, Any]:
    writer = Writer(seed=tokens)
    rows = [writer.row(tokens) for _ in range(count)]
    texts = ["".join(span.text for s in real.sample(0, row) for span in s.spans) for row in rows]
    tokenizer = real.tokenizer.backend_tokenizer
    with tempfile.TemporaryDirectory() as name:
        folder = _chunks(name, rows)
        actions: dict[str, Callable[[], object]] = {
            "encode": lambda: real.verdicts(rows),
            "ours": lambda: _answered(ours, folder),
            "tokenizer": lambda: _tokens(tokenizer, texts),
        }
        taken: dict[str, list[Seconds]] = {name: [] for name in actions}
        for _ in range(rounds):
            for name, action in actions.items():
                taken[name].append(_timed(action))
        answers = folder.answers(_answered(ours, folder))
        found = [verdict for answer in answers for verdict in answer]
    expected = real.verdicts(rows)
    return {
        "tokens_a_row": round(sum(verdict.n_tokens for verdict in expected) / count, 1),
        "rows": count,
        **_summary(taken, count),
        "verdicts_that_differ": sum(a != b for a, b in zip(expected, found, strict=True)),
    }


def _summary(taken: dict[str, list[Seconds]], count: int) -> dict[str, Any]:
    wall = {name: statistics.median(one.wall for one in all_) for name, all_ in taken.items()}
    cpu = {name: statistics.median(one.cpu for one in all_) for name, all_ in taken.items()}
    return {
        "rows_per_second": {name: round(count / seconds) for name, seconds in wall.items()},
        "times_encode": round(wall["encode"] / wall["ours"], 1),
        "share_of_tokenizer": round(wall["tokenizer"] / wall["ours"], 2),
        "cores_busy": {name: round(cpu[name] / wall[name], 2) for name in wall},
        "cpu_microseconds_a_row": {name: round(1e6 * s / count) for name, s in cpu.items()},
        "times_encode_per_cpu_second": round(cpu["encode"] / cpu["ours"], 1),
        "wall_seconds": {
            name: [round(one.wall, 2) for one in all_] for name, all_ in taken.items()
        },
    }


def _chunks(name: str, rows: Rows) -> ChunkFolder:
    """The rows in files, as the process that reads the data hands them over."""
    folder = ChunkFolder(Path(name))
    for number, start in enumerate(range(0, len(rows), CHUNK)):
        folder.put_rows(number, rows[start : start + CHUNK])
    return folder


def _answered(examiner: Examiner, folder: ChunkFolder) -> int:
    """Judge what is in the folder, as the child does; the number of chunks."""
    number = 0
    while rows := folder.rows(number):
        folder.put_answer(number, examiner.verdicts(rows))
        number += 1
    return number


def _tokens(tokenizer: Any, texts: Sequence[str]) -> int:
    """The number of tokens, batch by batch of the same size."""
    batches = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return sum(
        len(encoding)
        for batch in batches
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    )


def _timed(action: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _record(
    cases: list[dict[str, Any]], ours: Examiner, rounds: int, setup: float
) -> dict[str, Any]:
    return {
        "benchmark": "data-template",
        "date": datetime.date.today().isoformat(),
        "what": "rows a second, interleaved rounds, median; verdicts compared row by row",
        "command": "python benchmarks/data/template.py",
        "rounds": rounds,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("ms-swift", "transformers", "tokenizers", "tiktoken")
            },
        },
        "tokenizer_entries": ENTRIES,
        "tiktoken_setup_s": round(setup, 1),
        "template": ours.facts.model_dump(),
        "cases": cases,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class Writer:
    """Writes sentences in a made-up English and a made-up Chinese."""

    def __init__(self, seed: int) -> None:
        words = random.Random(0)  # the same words whatever is written with them
        syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
        self._english = _lexicon(words, syllables, (1, 2, 2, 3, 3, 4))
        self._chinese = _lexicon(words, [chr(0x4E00 + i) for i in range(3500)], (1, 2, 2, 2, 3, 4))
        self._weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(_WORDS)))
        self._random = random.Random(seed)

    def sentence(self, chinese: bool) -> str:
        """Some five to twenty words."""
        lexicon = self._chinese if chinese else self._english
        count = self._random.randint(5, 20)
        words = self._random.choices(lexicon, cum_weights=self._weights, k=count)
        if self._random.random() < 0.2:
            words[-1] += str(self._random.randrange(3000))
        if chinese:
            middle = count // 2
            return "".join(words[:middle]) + "，" + "".join(words[middle:]) + "。"
        return " ".join(words).capitalize() + ". "

    def text(self, tokens: int) -> str:
        """Text of about so many tokens in one of the two languages."""
        chinese = self._random.random() < 0.5
        sentences = max(1, round(tokens / 14))
        return "".join(self.sentence(chinese) for _ in range(sentences)).strip()

    def row(self, tokens: int) -> dict[str, Any]:
        """A dialogue of about so many tokens: one or two turns, a third with a system prompt."""
        turns = self._random.choice((1, 1, 2))
        system = self._random.random() < 1 / 3
        share = (tokens - 20 * turns) / (turns + system / 4)
        messages = [{"role": "system", "content": self.text(int(share / 4))}] if system else []
        for _ in range(turns):
            messages.append({"role": "user", "content": self.text(int(share / 3))})
            messages.append({"role": "assistant", "content": self.text(int(share * 2 / 3))})
        return {"messages": messages}


def build_model(folder: Path) -> None:
    """Write config and tokenizer of a Qwen3 without weights to `folder`; a few minutes."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    fast.save_pretrained(folder)
    Qwen3Config(vocab_size=ENTRIES, max_position_embeddings=4096).save_pretrained(folder)


def _corpus() -> Iterator[str]:
    writer = Writer(seed=1)
    for number in range(_SENTENCES):
        yield writer.sentence(chinese=number % 2 == 0)


def _lexicon(words: random.Random, pieces: list[str], lengths: tuple[int, ...]) -> list[str]:
    ranks = list(itertools.accumulate(1 / (rank + 20) for rank in range(len(pieces))))
    found: dict[str, None] = {}
    while len(found) < _WORDS:
        length = words.choice(lengths)
        found["".join(words.choices(pieces, cum_weights=ranks, k=length))] = None
    return list(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
