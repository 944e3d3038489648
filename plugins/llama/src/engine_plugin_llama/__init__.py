"""Llama, Mistral, Ministral and Qwen2 as a plugin of the engine: one decoder, four architectures."""
