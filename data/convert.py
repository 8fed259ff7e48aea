"""Write a file in another shape: python data/convert.py my.csv --to sharegpt --out my.json"""

from palmswift.data.convert import main

if __name__ == "__main__":
    raise SystemExit(main())
