"""From the logits of a position to a token, and from tokens to text.

Others use `chain.Chain`, `parameters.choose_chain` and `decoder.RowDecoder`.
May import: files, exported.

    chain  the links of a sampling chain in order, run with NumPy
    draw  chooses a token from logits and a uniform number
    stored  the chain that is compiled into a file, from its metadata
    parameters  parameters of the chain's links, set by flags or by keyword arguments
    effects  remarks on parameters that have no effect, or act against another one
    styles  measured settings of the chain, by the name of a style
    decoder  from the tokens of one row to its text
"""
