"""Write train.jsonl, val.jsonl (sums and right numbers) and answers.jsonl (two ways to answer)."""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SEED = 20261
TRAIN_ROWS, VAL_ROWS = 200, 40

STORIES = {
    "+": ("{a}加{b}等于多少？", "篮子里有{a}个梨，又放进{b}个，一共有几个？"),
    "-": ("{a}减{b}等于多少？", "停车场有{a}辆车，开走了{b}辆，还剩几辆？"),
    "*": ("{a}乘以{b}等于多少？", "每盒有{a}支笔，{b}盒一共有几支？"),
}
"""The ways of asking each sum: as a sum, and as a short story."""


ANSWERS = ("<think>算一算</think>\n<answer>{solution}</answer>", "答案是{solution}。")
"""How answers.jsonl answers each sum: as ms-swift's reward `format` asks, and not."""


class Sum(NamedTuple):
    """Two numbers and what is done with them."""

    a: int
    sign: str
    b: int

    @property
    def result(self) -> int:
        """What comes out; never below zero."""
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.sign]


def draw(numbers: random.Random) -> Sum:
    """One sum with numbers that a child does in the head."""
    sign = numbers.choice("+-*")
    if sign == "*":
        return Sum(numbers.randint(2, 12), sign, numbers.randint(2, 9))
    a, b = numbers.randint(2, 99), numbers.randint(2, 99)
    return Sum(max(a, b), sign, min(a, b))


def rows() -> list[dict[str, str]]:
    """All rows, each sum once in one wording; the same ones each time."""
    numbers = random.Random(SEED)
    drawn: dict[Sum, None] = {}
    while len(drawn) < TRAIN_ROWS + VAL_ROWS:
        drawn.setdefault(draw(numbers))
    return [
        {
            "prompt": numbers.choice(STORIES[item.sign]).format(a=item.a, b=item.b),
            "solution": str(item.result),
        }
        for item in drawn
    ]


def answered(sums: Sequence[dict[str, str]]) -> list[dict[str, object]]:
    """Each sum once with every way of answering."""
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": answer.format(solution=row["solution"])},
            ]
        }
        for row in sums
        for answer in ANSWERS
    ]


def write(path: Path, rows: Sequence[object]) -> None:
    """One JSON object a line."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Write all files into a folder, this one unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    folder: Path = parser.parse_args(argv).out
    made = rows()
    train, val = made[:TRAIN_ROWS], made[TRAIN_ROWS:]
    write(folder / "train.jsonl", train)
    write(folder / "val.jsonl", val)
    write(folder / "answers.jsonl", answered(train))


if __name__ == "__main__":
    main()
