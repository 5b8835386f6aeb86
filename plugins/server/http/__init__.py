"""From a request to its answer.

Others use `app.Server`, `api_keys.ApiKeys`, `protocol.make_config` and `sockets.allow_connections`.
May import: tasks.

    app  the routes
    requests  from the JSON of a request to the texts to write
    fields  the fields of requests, with their types
    completions  the answers of ``/v1/completions``, whole and as events
    answering  what every answer has: a request id, an error object, a line in the log
    guards  limits that hold for every request: host, key, size, time
    api_keys  the keys that clients send
    pages  the page at ``/``
    docs  the page of the API at ``/docs``
    protocol  uvicorn's protocol with deadlines, and the number of connections
    sockets  what the operating system bounds for a server
"""
