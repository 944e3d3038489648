"""Speech to text: cutting long clips, asking a speech plugin what to do with each piece, joining what comes back."""
