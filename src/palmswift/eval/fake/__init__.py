"""A model server without a model, for trying clients."""
