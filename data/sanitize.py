"""Clean data files: python data/sanitize.py my.csv --recipe qwen3_8b_4bit --out clean/"""

from palmswift.data.sanitize import main

if __name__ == "__main__":
    raise SystemExit(main())
