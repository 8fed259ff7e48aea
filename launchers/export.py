"""Make a servable model of a run: python launchers/export.py --run latest --merge"""

from palmswift.export.command import main

if __name__ == "__main__":
    raise SystemExit(main())
