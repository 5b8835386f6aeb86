"""``gen serve``: models behind an HTTP API, for many clients at a time.

plugin  registers the command
command  the options of ``gen serve``
settings  addresses, keys and limits
problems  the errors that a client gets, as OpenAI's API has them
messages  what the server and its workers send each other
worker  the program that writes texts with one model, as a process of its own
workers  the workers of a model: starts them, hands out work, and gives texts back
models  the models by name; loads their files again
requests  from the JSON of a request to the texts to write
completions  the answers of ``/v1/completions``, whole and as events
scores  ``/score`` and ``/best``
app  the routes
pages  the page at ``/``
answering  what every answer has: a request id, an error object, a line in the log
guards  limits that hold for every request: host, key, size, time
keys  the keys that clients send
protocol  uvicorn's protocol with deadlines, and the number of connections
sockets  what the operating system bounds for a server
metrics  counters and histograms for Prometheus
logs  one line of JSON for each request
expressions  compiles what texts must match, in a process of its own
expression_worker  the program of that process
"""
