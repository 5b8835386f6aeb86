"""From the logits of a position to a token, and from tokens to text.

Others use `chain.Chain`, `configured_chain.chain_of` and `decoder.GeneratedText`.
May import: exported, components.

    chain  the links of a sampling chain in order, run with NumPy
    configured_chain  the chain that a config or a file describes, and the tables of its links
    stored  the chain that is compiled into a file, from its metadata
    draw  chooses a token from logits and a uniform number
    decoder  from the tokens of one row to its text
"""
