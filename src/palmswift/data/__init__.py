"""The data gate: every row is trained as its author meant, or rejected with a reason."""
