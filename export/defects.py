"""Names errors of gentext in an export, so that they can be reported, beside models that cannot be converted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gentext.errors import ExportDefect, FileFormatError, GenError, reason
from gentext.exported.metadata import Bundle
from gentext.manager import host
from gentext.sampling.chain import Chain

#: Characters of a cause, and of the names of links, at most, for the whole fits into the line of an error.
MAX_CAUSE, MAX_LINKS = 120, 80


@contextlib.contextmanager
def name_defects(conversion: str, bundle: Bundle, chain: Chain) -> Iterator[None]:
    """Raise ExportDefect where a conversion fails otherwise than by saying why a model cannot be converted.

    A conversion says that with ExportError or PluginError. Any other exception, such as that of onnx as it checks the
    graph, or of onnxruntime where it opens the file, is about what gentext has built. Those of a plugin's code pass.
    """
    try:
        yield
    except FileFormatError as error:  # it calls the file damaged, which was just built
        raise describe_defect(conversion, reason(error), bundle, chain) from error
    except (GenError, MemoryError, OSError):
        raise
    except Exception as error:
        if host().find_plugin(error) is not None:
            raise
        raise describe_defect(conversion, reason(error), bundle, chain) from error


def describe_defect(conversion: str, cause: str, bundle: Bundle, chain: Chain) -> ExportDefect:
    """Return the error of a conversion, with what has to be reported: cause, versions, model, symbols and links.

    Settings of the model that are 0 or off are left out.
    """
    versions = bundle.card.get("versions", {})
    settings = {name: value for name, value in bundle.card.get("config", {}).get("model", {}).items() if value}
    parts = [
        f"{conversion}: a defect of gentext, not of the model. Please report this line: {_shorten(cause, MAX_CAUSE)}",
        " ".join(f"{name} {version}" for name, version in versions.items()),
        "model " + " ".join(f"{name}={value}" for name, value in settings.items()),
        f"{bundle.vocab_size} symbols",
        f"chain {_shorten(' '.join(chain.names), MAX_LINKS)}",
    ]
    return ExportDefect("; ".join(parts))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
