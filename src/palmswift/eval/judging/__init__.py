"""Ratings by language models and by people, and how far they agree."""
