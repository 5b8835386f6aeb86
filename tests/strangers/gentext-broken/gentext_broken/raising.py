"""Fails when it is imported."""

raise RuntimeError("out of order\nand a second line that nobody needs to see")
