"""Write train.jsonl, the front-desk dialogues, from the hand-written pieces in tables.json."""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).resolve().parent
SEED = 20260
SENTENCES_A_TEXT = 4
FOLLOW_UPS_EACH = 4
CLINIC_SYSTEM = "你是云雀堂的客服助理。"


class Topic(TypedDict):
    """What visitors of any business ask, and how a business answers with its own facts."""

    questions: list[str]
    answers: list[str]


class FollowUp(TypedDict):
    """Questions that move a dialogue from the topic `after` to another topic."""

    after: str
    topic: str
    questions: list[str]


class Business(TypedDict):
    """One invented business: its system prompt, its facts, and dialogues only it can have."""

    system: str
    facts: dict[str, str]
    pairs: list[list[str]]
    dialogues: list[list[str]]


class Tables(TypedDict):
    """The whole of tables.json."""

    courtesy: list[list[str]]
    topics: dict[str, Topic]
    follow_ups: list[FollowUp]
    businesses: list[Business]


class Message(TypedDict):
    """One turn of a dialogue."""

    role: str
    content: str


Dialogue = list[Message]


def read_tables() -> Tables:
    """Return the hand-written pieces."""
    tables: Tables = json.loads((HERE / "tables.json").read_text(encoding="utf-8"))
    return tables


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """Return one choice; only rng.random() is promised to stay the same between Pythons."""
    return choices[int(rng.random() * len(choices))]


def dialogue(system: str, turns: Sequence[str]) -> Dialogue:
    """Return the messages of a dialogue whose turns alternate, the user's first."""
    messages: Dialogue = [{"role": "system", "content": system}]
    for index, text in enumerate(turns):
        messages.append({"role": "assistant" if index % 2 else "user", "content": text})
    return messages


def business_dialogues(tables: Tables, number: int, rng: random.Random) -> Iterator[Dialogue]:
    """Yield every dialogue of one business, which answers a topic always in the same words."""
    business = tables["businesses"][number]
    facts, topics = business["facts"], tables["topics"]
    answers = {name: pick(rng, topic["answers"]).format(**facts) for name, topic in topics.items()}

    def ask(name: str) -> str:
        return pick(rng, topics[name]["questions"]).format(**facts)

    for name in topics:
        yield dialogue(business["system"], [ask(name), answers[name]])
    for turns in business["pairs"] + business["dialogues"]:
        yield dialogue(business["system"], turns)
    for step in range(FOLLOW_UPS_EACH):
        which = (number * FOLLOW_UPS_EACH + step) % len(tables["follow_ups"])
        link = tables["follow_ups"][which]
        first, then = link["after"], link["topic"]
        turns = [ask(first), answers[first], pick(rng, link["questions"]), answers[then]]
        yield dialogue(business["system"], turns)


def all_dialogues(tables: Tables) -> list[Dialogue]:
    """Return the whole corpus in its fixed shuffled order."""
    rng = random.Random(SEED)
    rows = [dialogue(CLINIC_SYSTEM, turns) for turns in tables["courtesy"]]
    for number in range(len(tables["businesses"])):
        rows.extend(business_dialogues(tables, number, rng))
    return sorted(rows, key=lambda _: rng.random())


def texts(dialogues: Sequence[Dialogue]) -> list[str]:
    """What each business says, as running text: its answers, some to a paragraph."""
    said: dict[str, dict[str, None]] = {}
    for row in dialogues:
        sentences = said.setdefault(row[0]["content"], {})
        sentences.update({turn["content"]: None for turn in row if turn["role"] == "assistant"})
    paragraphs = []
    for answers in said.values():
        listed = list(answers)
        for start in range(0, len(listed), SENTENCES_A_TEXT):
            paragraphs.append("".join(listed[start : start + SENTENCES_A_TEXT]))
    return paragraphs


def write(path: Path, rows: Sequence[object]) -> None:
    """One JSON object a line, with the same bytes on every system."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(lines.encode("utf-8"))


def main() -> None:
    """Write the dialogues, and beside them what is said in them as text for pre-training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=HERE / "train.jsonl")
    out: Path = parser.parse_args().out
    dialogues = all_dialogues(read_tables())
    write(out, [{"messages": row} for row in dialogues])
    write(out.with_name("texts.jsonl"), [{"text": text} for text in texts(dialogues)])


if __name__ == "__main__":
    main()
