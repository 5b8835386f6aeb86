"""Whole records: which are written, how they are drawn side by side, and where they go.

Others use `record_requests.prepare_records` and `record_writing.RecordStream`.
May import: files, exported, sampling, requests, matching, generation, corpus, data.

    record_requests  checks a request for records, and prepares them
    record_plan  which records of a seed are written
    record_rows  records side by side over one compiled generator
    record_schedule  which rows share a call in which records are drawn, and how many positions it has
    record_batches  records side by side over any other sampler
    record_writing  whole records in order, new and different where asked for
    record_output  records as text, JSON lines and CSV, and files of them
"""
