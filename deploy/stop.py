"""Stop servers: python deploy/stop.py [--run latest | --port 8000 | --all]"""

from palmswift.deploy.stop import main

if __name__ == "__main__":
    raise SystemExit(main())
