"""The built-in plugins, loaded through the same hooks as anybody's. `builtin.py` is the table of contents."""
