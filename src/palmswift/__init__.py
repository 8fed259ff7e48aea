"""Fine-tune Qwen3 on one small GPU with ms-swift: recipes, clean data, a served, tested model."""

__version__ = "0.1.0"
