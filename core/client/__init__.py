"""Talks to any OpenAI-compatible server, for `engine chat` and `engine bench serve`. Nothing here needs a model or torch."""
