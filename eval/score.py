"""Score answers: python eval/score.py --predictions answers.jsonl --references refs.jsonl"""

from palmswift.eval.score_command import main

if __name__ == "__main__":
    raise SystemExit(main())
