"""``gen sweep``: many runs with other settings, of which the best is kept."""
