"""Texts: requests, and the rows of a compiled generator that write them side by side.

Others use `writing.prepare_writing`, `slots.Slots` and `compiled.generate_compiled`.
May import: files, exported, sampling, matching.

    writing  checks a request for texts, and prepares them
    writing_arguments  keyword arguments of calls that write, as the options of a request
    generate  texts from a sampler: requests in tokens, and pieces of text
    compiled  generation with a compiled generator, many positions in a call
    rows  a row of a compiled generator by itself: its request, and how far it is
    row_state  the state of a row of a compiled generator between two calls
    row_batch  rows that share the calls of a compiled generator
    stacking  automata of several requests as one table
    schedule  how many positions a call has, where texts begin and end between calls
    slots  many texts over one compiled generator, which begin and end while others go on
    bulk  the texts of one request in slots, in order
"""
