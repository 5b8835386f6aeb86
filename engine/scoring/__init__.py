"""What a model thinks of given texts: losses, log-probabilities, and its hidden units.

Others use `score.score_text`, `record_scores.score_texts` and `inspection.inspect_tokens`.
May import: files, exported, components, requests, search, runs, data.

    score  the loss of a model on a text
    record_scores  the log-probabilities of many short texts, each from a fresh state
    score_files  the rows of `gen score`
    score_tables  rows as JSON lines, CSV or Parquet
    unknown_characters  the characters of a text that a model does not know, where the text is measured
    inspection  what a model thinks at each symbol of a text: probabilities and hidden units
    text_features  features of the places in a text, such as within quotes
    unit_information  how much hidden units tell about features of a text
"""
