"""``python -m gentext`` is ``gen``."""

from gentext.cli.app import script

if __name__ == "__main__":
    raise SystemExit(script())
