"""Whether one model is better than another: statistics, contamination, gates, the word."""
