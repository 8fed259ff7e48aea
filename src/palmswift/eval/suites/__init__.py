"""Suites: cases and assertions, what they are read from, and answers held against them."""
