"""Texts that go on after a request: sessions, and a text that a user and a model write in turns.

Others use `session.unpack`, `continuation.continue_text` and `text_tree.TextTree`.
May import: files, exported, sampling, requests, matching, generation, library.

    session  a text between two requests, as bytes that any process with the same file can go on from
    session_settings  what a session keeps of the request, so that the next one may leave it out
    session_keys  the keys that sign sessions, and the tokens in which sessions travel
    continuation  ends a request with a session, and begins one with it
    text_tree  a text with all its versions, as a tree
    text_pieces  the pieces of a text that a user and a model write in turns
"""
