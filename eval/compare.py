"""Did it help? python eval/compare.py base.jsonl tuned.jsonl --suite eval/suites/clinic.yaml"""

from palmswift.eval.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
