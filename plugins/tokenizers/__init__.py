"""Text to tokens, and the bytes of each token."""
