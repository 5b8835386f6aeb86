"""How a model reads a text: the surprise of each symbol, what else was probable, and its hidden units.

Others use `inspected_text.inspect_tokens` and `inspected_text.InspectedText`.
May import: files, exported, components, requests, scoring, data.

    reading  reads a text symbol by symbol, and keeps probabilities and hidden units
    text_features  features of the places in a text, such as within quotes
    unit_information  how much hidden units tell about features of a text
    inspected_text  a text with all of these
    page  shows it as one HTML page
"""
