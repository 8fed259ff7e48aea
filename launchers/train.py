"""Train what a recipe says: python launchers/train.py --recipe qwen3_8b_4bit --data my.jsonl"""

from palmswift.launchers.train import main

if __name__ == "__main__":
    raise SystemExit(main())
