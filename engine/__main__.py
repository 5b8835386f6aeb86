"""``python -m gentext`` runs ``gen``."""

from gentext.cli.app import script

if __name__ == "__main__":
    raise SystemExit(script())
