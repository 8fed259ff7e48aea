"""Serve a run or a model: python deploy/serve.py --run latest [--detach]"""

from palmswift.deploy.serve import main

if __name__ == "__main__":
    raise SystemExit(main())
