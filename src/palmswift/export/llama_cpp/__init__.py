"""llama.cpp's own parts for GGUF: its converter, its quantiser and its server."""
