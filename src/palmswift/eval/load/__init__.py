"""Load tests: putting the load on, its statistics, its report."""
