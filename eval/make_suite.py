"""Make a suite of held-out rows: python eval/make_suite.py latest --out mine.yaml"""

from palmswift.eval.make_suite import main

if __name__ == "__main__":
    raise SystemExit(main())
