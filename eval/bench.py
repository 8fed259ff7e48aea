"""Measure under load: python eval/bench.py --endpoint URL --concurrency 1 8 32"""

from palmswift.eval.bench import main

if __name__ == "__main__":
    raise SystemExit(main())
