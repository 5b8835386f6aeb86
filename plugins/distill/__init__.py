"""Learning from a trained run: ``gen distill``, the batcher ``written``, and the trainer ``distill``."""
