"""Llama, Mistral and Qwen2 as a plugin of the engine: one decoder, three architectures."""
