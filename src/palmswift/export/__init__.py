"""What is made of a finished run: merged, quantised and converted models, each checked."""
