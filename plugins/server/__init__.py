"""``gen serve``: models behind an HTTP API, for many clients at a time.

The server reads requests and answers them; each model has workers, processes of their own, that write the texts.

    plugin  registers the command
    command  the options of ``gen serve``
    settings  addresses, keys and limits
    serving  opens the models and the address, and ends in order
    problems  the errors that a client gets, as OpenAI's API has them
    metrics  counters and histograms for Prometheus
    logs  one line of JSON for each request

Rooms: the server imports ``http`` and ``tasks``, a worker imports ``worker``, and both sides the messages in ``tasks``.
    http  from a request to its answer: routes, limits, completions, pages
    tasks  the models by name, the tasks that wait for each, and its workers
    worker  the programs of a worker, which write texts with one model
"""
