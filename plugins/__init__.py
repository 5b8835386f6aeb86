"""The built-in plugins, a folder for each kind; `builtin.py` is their table of contents.

tokenizers, batchers, models, trainers, samplers, strategies
    One component a file, its private parts beside it.
observers
    What watches a run: the log, the progress bar, samples, curves, event files.
presets
    Named settings, and the rules that adapt them to a text and a budget.
pytorch
    What authors of models and trainers build on, and the sampler of a run that is not exported.
sweep
    ``gen sweep``: many runs with other settings, of which the best is kept.
"""
