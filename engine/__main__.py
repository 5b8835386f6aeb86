"""``python -m gentext`` is ``gen``."""

from gentext.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
