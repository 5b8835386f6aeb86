"""An opened model in a Python program.

Others use `declaration.OpenArguments`, `loading.open_from_arguments` and `loading.TextModel`.
May import: files, exported, components, sampling, requests, generation, search, runs, scoring, inspection, records.

    declaration  how a model is opened: every option, with its type, default and help
    loading  opens a trained model
    open_model  an opened model: what its file says about it, and the checks of requests to it
    measured_model  such a model that tells how probable texts are
    text_model  such a model that writes texts and records
    bench  how fast a file writes
"""
