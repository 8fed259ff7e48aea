"""Show rows as the model sees them: python data/preview.py my.csv --recipe qwen3_8b_4bit"""

from palmswift.data.preview import main

if __name__ == "__main__":
    raise SystemExit(main())
