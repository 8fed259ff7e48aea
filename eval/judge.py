"""Rate answers by a language model: python eval/judge.py --predictions P.jsonl --endpoint URL"""

from palmswift.eval.judge_command import main

if __name__ == "__main__":
    raise SystemExit(main())
