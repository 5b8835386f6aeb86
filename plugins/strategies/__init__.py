"""The links of the sampling chain, one a file."""
