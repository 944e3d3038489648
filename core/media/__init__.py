"""The one door through which bytes from outside come in: fetch, decode, limits."""
