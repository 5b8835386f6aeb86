"""How often a compiled chain draws another symbol than the same chain in NumPy, both reading what NumPy has drawn.

    python benchmarks/agreement.py RUN [--draws 100000] [--links dry,mirostat] [--precision fp32] [--json]

For each built-in link, some of their variants, the default chain and all links together. 64 rows with other parameters
in each. Both sides get the logits of the compiled file, so what differs is the chain alone: a sum that is rounded in
another order, and moves a symbol over a threshold. At most 2 draws in 100,000 should differ.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np

from gentext.generation.model_calls import first_feeds, next_feeds
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.sampling.draw import draw_tokens

ROWS = 64


def count_differences(
    generator: OnnxGenerator, numbers: common.Numbers, options: Mapping[str, Mapping[str, str]], draws: int
) -> int:
    """Draw in both ways; return how many draws differ."""
    chain = common.chain(generator).with_options(options)
    params = common.varied_params(chain, ROWS)
    for link, values in numbers.items():
        params[link] |= chain.param_arrays(ROWS, {link: values})[link]
    tables = chain.table_arrays(common.tokenizer(generator))
    constant_feeds = {
        f"{link}.{name}": array
        for arrays in (params, tables)
        for link, by_name in arrays.items()
        for name, array in by_name.items()
    }
    signature = generator.session.signature
    feeds: dict[str, Any] = first_feeds(signature, ROWS)
    states, is_new = chain.initial_state(ROWS, params), np.ones((ROWS, 1), np.bool_)
    rng, different = np.random.default_rng(1), 0
    for _ in range(draws // ROWS):
        uniforms = rng.random((1, ROWS, signature.columns), np.float32)
        noise = {name: uniforms[0, :, first : first + count] for name, (first, count) in signature.noise.items()}
        free = {"forced": np.full((1, ROWS), -1, np.int64), "noise": uniforms}
        results = generator.session.call(feeds | free | constant_feeds)
        logits, states, logits_by_link = chain.apply(
            common.mask_unknown(generator, results["logits"]), params, states, noise, tables
        )
        tokens, _ = draw_tokens(logits, noise["draw"])
        states = chain.accept(tokens, logits_by_link, params, states, tables, is_new)
        if (differs := results["tokens"][0] != tokens).any():
            different += int(differs.sum())
            results = generator.session.call(feeds | free | {"forced": tokens[None]} | constant_feeds)
        feeds = next_feeds(signature, results)
    return different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--links", help="only these, with commas, and no chains of several")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.links.split(",") if options.links else common.link_names()
    cases: dict[str, tuple[list[str], common.Numbers]] = {name: ([name], {}) for name in names}
    cases |= {title: ([name], {name: values}) for title, (name, values) in common.VARIANTS.items() if name in names}
    if not options.links:
        cases |= {"the default chain": (common.DEFAULT, {}), "all links": (["all"], {})}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compiler = common.GeneratorCompiler(options.run, Path(folder), options.precision, 1)
        for title, (links, numbers) in cases.items():
            link_options = {name: common.OPTIONS[name] for name in common.OPTIONS if name in links or links == ["all"]}
            generator = compiler.compile(links, link_options)
            different = count_differences(generator, numbers, link_options, options.draws)
            drawn = options.draws // ROWS * ROWS
            rows.append({"chain": title, "draws": drawn, "differ": different, "of 100,000": 1e5 * different / drawn})
    common.print_table(f"draws that differ, compiled and in NumPy, {options.precision}", rows, options.json)


if __name__ == "__main__":
    main()
