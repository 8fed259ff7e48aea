"""Show what a server has written: python deploy/logs.py [-n 50] [--follow]"""

from palmswift.deploy.logs import main

if __name__ == "__main__":
    raise SystemExit(main())
