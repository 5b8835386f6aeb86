"""What a request may ask for, in the words of the door it came through: options, parameters of the chain, primes.

Others use `options.WritingOptions`, `parameters.choose_chain` and `spelling.Spelling`.
May import: exported, components, sampling.

    options  what a request for texts may ask for, and the checks of it
    writing_arguments  keyword arguments of calls that write, as such options
    parameters  parameters of the chain's links, set by flags or by keyword arguments
    spelling  how messages name an option: as a flag, a keyword argument or a field
    styles  measured settings of the chain, by the name of a style
    effects  remarks on parameters that have no effect, or act against another one
    primes  primes as ids, and what to do about characters that the model does not know
"""
