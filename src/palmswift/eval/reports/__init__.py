"""The evaluation report and the forms that people and tools read it in."""
