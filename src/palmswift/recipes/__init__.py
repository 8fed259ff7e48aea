"""Recipes: what a fine-tune is, how it is loaded, merged and checked."""
