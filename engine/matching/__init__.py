"""What texts must match: regular expressions and JSON schemas, as automata over the symbols of a model.

Others use `constraints.prepare_matches` and `match_tables.MATCH_LINK`.
May import: files, exported, sampling, requests.

    constraints  what the texts of a request must match
    expression  regular expressions as Python reads them, in the syntax of outlines-core
    expression_child  the program that compiles an expression
    byte_automaton  an expression as an automaton over bytes
    match  the texts that match an expression, as an automaton over symbols
    match_tables  the tables that the link `match` reads
    json_schema  JSON schemas as expressions
    decimals  decimal numbers between two bounds as expressions
"""
