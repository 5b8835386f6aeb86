"""``gen doctor``: shows versions, devices and folders, and problems of this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import Annotated, Any

import typer

from gentext.data.encoded import cache_folder
from gentext.files.versions import installed_version
from gentext.manager import host
from gentext.registry import TRAIN_MODULES
from gentext.run import runs_folder
from gentext.settings import cores

#: Distributions whose versions are shown where they are installed.
REPORTED_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "outlines-core",
    "torch",
    "onnx",
    "onnxscript",
    "safetensors",
    "matplotlib",
    "optuna",
    "tensorboard",
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices and folders, and name what is wrong."""
    facts, problems = _collect_facts(), _find_problems()
    if as_json:
        import json

        print(json.dumps(facts | {"problems": problems}, indent=1))
    else:
        for fact_name, fact in facts.items():
            print(f"{fact_name + ':':<16} {fact}")
        for problem in problems:
            print(f"problem:         {problem}")
        print("all is well" if not problems else f"{len(problems)} problems")
    if problems:
        raise typer.Exit(1)


def _collect_facts() -> dict[str, Any]:
    versions = {name: version for name in REPORTED_PACKAGES if (version := installed_version(name))}
    return {
        "gentext": installed_version("gentext"),
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cores": cores(),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "train": "yes" if _can_train() else "no: pip install 'gentext[train]'",
        "cuda": _cuda_status(),
        "bf16 on cpu": _bf16_status(),
        "runs": str(runs_folder().absolute()),
        "corpora": os.environ.get("GEN_DATA_DIR") or "the user's cache folder (GEN_DATA_DIR changes it)",
        "encoded texts": str(cache_folder().absolute()),
        "plugins": ", ".join(sorted({str(plugin.distribution) for plugin in host().plugins})),
    }


def _find_problems() -> list[str]:
    problems = []
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install gentext again"
        )
    try:
        import gentext.plugins.samplers.runtime  # noqa: F401  it imports onnxruntime
    except ImportError as error:
        problems.append(f"onnxruntime cannot be imported ({error}): install it again")
    problems += [f"plugin {plugin.distribution}: {plugin.error}" for plugin in host().plugins if plugin.error]
    return problems


def _cuda_status() -> str:
    try:
        from gentext.plugins.samplers.runtime import cuda_problem
    except ImportError:  # `_find_problems` reports it
        return "unknown without onnxruntime"
    return cuda_problem() or "onnxruntime offers it; gen sample --device cuda tells whether a GPU answers"


def _can_train() -> bool:
    """Return whether the packages of the train extra are there: PyTorch alone may be, for other programs."""
    return all(importlib.util.find_spec(module) is not None for module in TRAIN_MODULES)


def _bf16_status() -> str:
    try:
        from gentext.plugins.pytorch.device import bf16_on_cpu
    except ImportError:
        return "unknown without the packages for training"
    return "yes" if bf16_on_cpu() else "no: training takes fp32"
