"""Answer a file: python eval/batch.py --input questions.txt --endpoint URL --out answers.jsonl"""

from palmswift.eval.batch import main

if __name__ == "__main__":
    raise SystemExit(main())
