"""Serving a trained model over the OpenAI protocol, and stopping it."""
