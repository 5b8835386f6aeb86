"""Runs: their config and components, their lock, and which run or file a user means.

Others use `resolve.TrainOptions`, `source.find_source` and `source.open_exported`.
May import: files, exported, components, sampling, data.

    resolve  the config of a run, from presets, files and options
    model_description  from a run to the bundle that describes its model, as exported files carry it
    record_options  how a text is cut into records
    source  finds the run or the file to open; without a path, the newest run; opens exported files
    lock  the lock of a run, which one training at a time holds
    removal  removes files that gentext made, and no others
    completion  what a shell completes after Tab
"""
