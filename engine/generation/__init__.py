"""Texts: requests, and the rows of a compiled generator that write them side by side.

Others use `writing.prepare_writing`, `texts.all_texts` and `slots.Slots`.
May import: exported, components, sampling, requests, matching.

    writing  checks a request for texts, and prepares them
    texts  writes the texts of such a request, in slots or in batches
    generate  texts from a sampler: requests in tokens, and pieces of text
    model_calls  calls of a compiled generator, and a check of what comes back
    row_table  the rows of a compiled generator, as arrays: add, remove, take, noise, call
    compiled  the rows of one request, which begin together
    stacking  automata of several requests as one table
    rows  a row by itself: its request, its state between two calls, its text so far
    first_states  the states in which rows begin
    row_batch  mixed texts as rows of a table
    slots  many texts over one compiled generator, which begin and end while others go on
    bulk  the texts of one request in slots, in order
"""
