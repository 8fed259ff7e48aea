"""Show the servers that run: python deploy/status.py [--json]"""

from palmswift.deploy.status import main

if __name__ == "__main__":
    raise SystemExit(main())
