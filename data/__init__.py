"""Texts to learn from: the catalogue of texts with a name, and how a text is read, decoded and encoded."""
