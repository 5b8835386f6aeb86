"""Creates the components of plugins, and checks what they hand over, where the component can still be named.

What a component returns is used far away from it. Without these checks a wrong type or shape would end in an error that
names only gentext's own code, or in a wrong text without any error. Each check raises PluginError, with the name of the
component and what was expected.

Others use `creation.create_component`, and the checks of the module that has the name of a kind.
May import: files.

    creation  creates components, and checks that each is what its kind demands
    links  checks what links of the sampling chain hand over: logits, states and tables
    samplers  checks what samplers hand over: the opened model, its logits and its chunks of tokens
    tokenizers  checks what tokenizers hand over: symbols, state and ids
    filters  creates filters, and checks what they answer
    arrays  the type of an array that a component hands over
"""
