"""The processes of a model's worker: one that writes texts, and one that compiles what they must match.

Nobody imports them: the server starts the first, which starts the second.
May import: tasks.

    program  the program that writes texts with one model
    texts  a text that the program writes, from its job to its events
    answers  ``/score`` and ``/best``, and what a worker says of its model
    expressions  has expressions compiled in a process of its own
    expression_program  the program of that process
"""
