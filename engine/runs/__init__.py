"""Runs and their parts: the config and its components, the lock, and which run or file is meant.

Others use `resolve.resolve_config`, `source.find_source` and `lock.RunLock`.
May import: TODO.

    resolve  the config of a run, from presets, files and options
    record_options  how a text is cut into records
    source  finds the run or the file to open; without a path, the newest run
    opening  opens an exported file with the built-in sampler
    lock  the lock of a run, which one training at a time holds
    removal  removes files that gentext made, and no others
    completion  what a shell completes after Tab
    filters  creates filters, and checks what they answer
"""
