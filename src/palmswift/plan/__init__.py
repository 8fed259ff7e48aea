"""Memory planning: will a recipe fit a card, and what decides it."""
