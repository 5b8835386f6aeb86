"""Tokenizers: turn text into tokens, and know the bytes of each token."""
