"""Merge a run's adapter: python launchers/export.py --run latest --merge"""

from palmswift.launchers.export import main

if __name__ == "__main__":
    raise SystemExit(main())
