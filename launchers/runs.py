"""List, compare, follow, clean up and repeat runs: python launchers/runs.py list"""

from palmswift.runs_command import main

if __name__ == "__main__":
    raise SystemExit(main())
