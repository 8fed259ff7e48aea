"""The whole job, resumable: python launchers/pipeline.py --recipe demo_cpu"""

from palmswift.pipeline import main

if __name__ == "__main__":
    raise SystemExit(main())
