"""``python -m gentext.cli`` runs ``gen``. torchrun, which starts modules, uses this one."""

from gentext.cli.app import script

if __name__ == "__main__":
    raise SystemExit(script())
