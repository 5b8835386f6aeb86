"""An opened model in a Python program.

Others use `loading.load` and `text_model.TextModel`.
May import: TODO.

    loading  opens a trained model
    open_model  an opened model: what its file says about it, and the checks of requests to it
    measured_model  such a model that tells how probable texts are
    text_model  such a model that writes texts and records
    bench  how fast a file writes
"""
