"""Rate answers blindly: python eval/rate.py --predictions a.jsonl b.jsonl"""

from palmswift.eval.rate import main

if __name__ == "__main__":
    raise SystemExit(main())
