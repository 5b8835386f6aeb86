"""``python -m gentext.cli`` is ``gen``: what torchrun is given."""

from gentext.cli.app import script

if __name__ == "__main__":
    raise SystemExit(script())
