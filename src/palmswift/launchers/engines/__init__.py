"""Trainings that outgrow one process: several GPUs and machines, schedulers, and other engines."""
