"""Each module is broken in its own way, but for `fine`."""
