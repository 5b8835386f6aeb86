"""Batchers: cut a long text into batches."""
