"""What a shell completes after Tab: presets, texts, models, filters, runs. The shell itself completes files."""

from __future__ import annotations

from gentext.run import CONFIG_FILE, runs_folder


def complete_corpora(incomplete: str) -> list[tuple[str, str]]:
    """Return the texts of the catalogue whose names begin so, with what they are."""
    from gentext.data.catalogue import CATALOGUE

    return [(entry.name, entry.summary) for entry in CATALOGUE.values() if entry.name.startswith(incomplete)]


def complete_presets(incomplete: str) -> list[str]:
    """Return the presets whose names begin so."""
    from gentext.runs.resolve import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Return the paths of runs in the folder of all runs that begin so."""
    folder = runs_folder()
    runs = [path for path in folder.iterdir() if (path / CONFIG_FILE).is_file()] if folder.is_dir() else []
    return sorted(str(path) for path in runs if str(path).startswith(incomplete))


def complete_models(incomplete: str) -> list[str]:
    """Return the runs, and the names of the models that come with gentext, that begin so."""
    from gentext.data.shipped import shipped_models

    return [*complete_runs(incomplete), *(name for name in shipped_models() if name.startswith(incomplete))]


def complete_filters(incomplete: str) -> list[tuple[str, str]]:
    """Return the filters of installed plugins whose names begin so, with what they do."""
    from gentext.manager import host

    filters = host().registry.registered("filter")
    return [(component.name, component.summary) for component in filters if component.name.startswith(incomplete)]
