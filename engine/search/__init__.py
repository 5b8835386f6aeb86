"""The most probable texts of a model.

Others use `searching.prepare_search`.
May import: exported, components, requests, matching.

    searching  checks a request for the most probable texts, and prepares it
    best  the most probable texts, by best-first search
    prefixes  beginnings of texts, and a model that reads many of them at a time
    endings  what may follow the beginning of a text, and where a text ends
"""
