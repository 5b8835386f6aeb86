"""How a long text becomes batches."""
