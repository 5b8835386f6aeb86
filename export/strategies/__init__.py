"""The links of a sampling chain as nodes of a graph."""
