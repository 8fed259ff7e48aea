"""Test a served model: python eval/run.py --suite S.yaml --endpoint URL --out DIR"""

from palmswift.eval.run import main

if __name__ == "__main__":
    raise SystemExit(main())
