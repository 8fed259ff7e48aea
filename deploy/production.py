"""All that runs a trained model for others: python deploy/production.py --run latest --out DIR"""

from palmswift.deploy.production import main

if __name__ == "__main__":
    raise SystemExit(main())
