"""Launchers: render ms-swift command lines, run them in a run folder, judge the result."""
