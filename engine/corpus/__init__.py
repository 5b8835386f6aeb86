"""What a run learns from and holds out: a text or records, as tokens.

Others use `split_corpus.SplitCorpus`, `held_out.held_out_path` and `novelty.KnownRecords`.
May import: files, exported, components, sampling, runs, data.

    text  reads one text as a corpus in two parts
    record_corpus  reads records as such a corpus
    split_corpus  a corpus as tokens, split into the part to learn from and the held-out part
    held_out  what a run holds out, in its folder
    novelty  the records that a model has learned from, as hashes
    arrangement  notices a text whose lines are sorted or grouped
    teacher  the run that teaches a model: writes the text that it learns from
    taught_corpus  what such a run has learned from, as a corpus
"""
