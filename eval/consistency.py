"""How alike repeated answers are: python eval/consistency.py --suite S.yaml --endpoint URL"""

from palmswift.eval.consistency_command import main

if __name__ == "__main__":
    raise SystemExit(main())
