"""What clients send, as pydantic models, and what they get, as functions that make it."""
