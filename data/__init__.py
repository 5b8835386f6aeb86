"""Texts to learn from: the catalogue of corpora, and how a text is read."""
