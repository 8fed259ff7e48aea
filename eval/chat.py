"""Talk with a served model: python eval/chat.py --endpoint http://127.0.0.1:8000/v1"""

from palmswift.eval.chat import main

if __name__ == "__main__":
    raise SystemExit(main())
