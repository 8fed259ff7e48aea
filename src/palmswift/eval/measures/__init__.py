"""What is measured of answers and of models: overlap, variety, likeness, likelihood."""
