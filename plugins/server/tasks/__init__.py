"""The models of a server, the tasks that wait for each, and the processes that write them.

Others use `models.Models` and `workers.Task`; workers use `messages`.
May import no other room.

    models  the models by name; loads their files again
    workers  the workers of a model: starts them, hands out work, and gives texts back
    messages  what the server and its workers send each other
"""
