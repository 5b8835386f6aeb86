"""What a request may ask for, in the words of the door it came through: options, parameters of the chain, primes.

Others use `declaration.WritingOptions`, `options.writing_options`, `parameters.choose_chain` and `spelling.Spelling`.
May import: files, exported, components, sampling.

    declaration  every option, with its type, default, range and help
    keywords  the keyword arguments of methods that write, and the options of a request that they make
    declared_options  the ranges of options, and the checks of them
    fields  how the server's requests have the options
    option_tables  tables of the options for reference pages
    options  complete options of a request for texts, and the checks of them
    parameters  parameters of the chain's links, set by flags or by keyword arguments
    spelling  how messages name an option: as a flag, a keyword argument or a field
    styles  measured settings of the chain, by the name of a style
    effects  remarks on parameters that have no effect, or act against another one
    primes  primes as ids, and what to do about characters that the model does not know
"""
