"""How probable given texts are to a model: losses and log-probabilities.

Others use `score.score_text` and `record_scores.score_texts`.
May import: files, exported, components, requests, search, runs, data.

    score  the loss of a model on a text
    record_scores  the log-probabilities of many short texts, each from a fresh state
    score_files  the rows of `gen score`
    score_tables  rows as JSON lines, CSV or Parquet
    unknown_characters  the characters of a text that a model does not know, where the text is measured
"""
