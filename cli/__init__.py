"""The commands of ``gen``, one file each. `app.main` is the only place that prints errors."""
