"""What watches a run through the hooks of its life, one observer a file."""
