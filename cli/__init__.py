"""The command line: options to config to pipeline. `app.main` is the only place that prints errors."""
