"""Texts: requests, and the rows of a compiled generator that write them side by side.

Others use `writing.prepare_writing`, `texts.all_texts` and `slots.Slots`.
May import: exported, components, sampling, requests, matching.

    writing  checks a request for texts, and prepares them
    texts  writes the texts of such a request, in slots or in batches
    generate  texts from a sampler: requests in tokens, and pieces of text
    model_calls  calls of a compiled generator, and a check of what comes back
    row_noise  the noise of rows, drawn for many positions at once
    row_table  the rows of a compiled generator, as arrays: add, remove, take, call
    compiled  the rows of one request, which begin together
    row_request  one text for a row of a compiled generator to write
    rows  rows for the texts of a request, and how far each is
    row_state  the state of a row of a compiled generator between two calls
    row_batch  mixed texts as rows of a table
    stacking  automata of several requests as one table
    schedule  how many positions a call has, where texts begin and end between calls
    slots  many texts over one compiled generator, which begin and end while others go on
    bulk  the texts of one request in slots, in order
"""
