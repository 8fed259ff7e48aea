"""Testing a served model: ask, journal, score, report, gate."""
