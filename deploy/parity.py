"""Is the served model the trained one? python deploy/parity.py --run latest [--against URL]"""

from palmswift.deploy.parity import main

if __name__ == "__main__":
    raise SystemExit(main())
