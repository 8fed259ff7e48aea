"""Say what a data set is like: python data/stats.py my.csv --recipe qwen3_8b_4bit"""

from palmswift.data.stats import main

if __name__ == "__main__":
    raise SystemExit(main())
