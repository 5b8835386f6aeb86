"""A training run from its options to the exported files, and what its losses mean.

Others use `declaration.TrainArguments`, `options.train_options`, `pipeline.run_training` and `train.train`.
May import: files, exported, components, sampling, runs, corpus, library, data.

    train  trains a model, or a student of another one, and opens it
    declaration  every option of training, with its type, default and help
    options  from arguments, or from flags, to the options of a run
    pipeline  a training run from its options to the exported files
    planning  creates the components of a run, and turns its budget into steps
    advice  warnings before the first step, from the sizes of text, model and budget
    learning_curve  whether a loss still falls, and whether held-out and training loss part
    verdict  the verdict at the end of a run, and what to try next
"""
