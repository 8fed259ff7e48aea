"""Asking served models: endpoints, client, pace, retries, journal, and what came back."""
