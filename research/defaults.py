"""Which parameters of the sampling chain are good defaults: 12 settings, measured on what models write.

    python research/defaults.py FOLDER RUN [RUN ...] [--characters 100000] [--seeds 5] [--picture FILE.png]

The model of each run writes one text for each setting and seed, all side by side, with an int8 generator. A text is
compared with the run's training text and with as many characters of its held-out text. FOLDER keeps the texts and the
measures of each run: what is there is not made again, so the program can be stopped and started with the same words.

`style_rule.py` says which setting becomes the default and which ones become styles.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import common
import numpy as np
import text_measures
from style_rule import (
    MAX_REPETITION_RATIO,
    MAX_WORD_LOSS,
    Measures,
    choose_styles,
    has_real_words,
    mean,
    repeats_little,
)

from gentext.data.stream import open_corpus
from gentext.interfaces import Request
from gentext.manager import host
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.run import HELD_OUT_FILE, Run
from gentext.sampling.configured_chain import configured_chain

#: The settings by title. What is not named is neutral.
SETTINGS: dict[str, common.Numbers] = {
    "temperature 1": {},
    "temperature 0.9": {"temperature": {"temperature": 0.9}},
    "temperature 0.8": {"temperature": {"temperature": 0.8}},
    "temperature 0.7": {"temperature": {"temperature": 0.7}},
    "temperature 0.8, dynatemp_range 0.3": {"temperature": {"temperature": 0.8, "dynatemp_range": 0.3}},
    "top_k 5": {"top_k": {"top_k": 5}},
    "top_k 10, temperature 0.8": {"top_k": {"top_k": 10}, "temperature": {"temperature": 0.8}},
    "top_k 20, temperature 0.9": {"top_k": {"top_k": 20}, "temperature": {"temperature": 0.9}},
    "top_p 0.9": {"top_p": {"top_p": 0.9}},
    "min_p 0.05": {"min_p": {"min_p": 0.05}},
    "min_p 0.1": {"min_p": {"min_p": 0.1}},
    "min_p 0.2": {"min_p": {"min_p": 0.2}},
    "min_p 0.05, temperature 0.8": {"min_p": {"min_p": 0.05}, "temperature": {"temperature": 0.8}},
    "min_p 0.1, temperature 1.2": {"min_p": {"min_p": 0.1}, "temperature": {"temperature": 1.2}},
    "min_p 0.05, xtc_probability 0.1": {"min_p": {"min_p": 0.05}, "xtc": {"xtc_probability": 0.1}},
    "typical_p 0.9": {"typical": {"typical_p": 0.9}},
    "top_n_sigma 1": {"top_n_sigma": {"top_n_sigma": 1}},
    "eta_cutoff 0.05": {"eta": {"eta_cutoff": 0.05}},
    "p_less 1": {"p_less": {"p_less": 1}},
}
#: Characters of the n-grams by which repetition and novelty, and the distance, are measured.
LONG, SHORT = 20, 5
#: Title of the held-out text among the measures, and of the end of the training text.
HELD_OUT, TRAINING = "held-out text", "training text"


#: Title of a setting, or of a reference -> the measures of its texts, a text for each seed.
TextMeasures = Mapping[str, Sequence[Measures]]


class Reference:
    """The training text and the held-out text of a run, with which written texts are compared."""

    def __init__(self, run: Run, characters: int) -> None:
        corpus, val_frac = run.config["corpus"], run.config["run"]["val_frac"]
        with open_corpus(corpus["origin"], tail_length=1) as stream:
            text = "".join(stream)
        if len(text) != corpus["characters"]:
            raise SystemExit(f"{corpus['origin']} is not the text of {run.path}: {corpus['characters']:,} characters")
        self.training = text[: int(len(text) * (1 - val_frac))]
        self.held_out = (run.path / HELD_OUT_FILE).read_text(encoding="utf-8")[:characters]
        self.vocabulary = set(text_measures.words(self.training))
        self.held_out_counts = text_measures.count_ngrams(self.held_out, SHORT)

    def measure(self, text: str, source: str | None = None) -> Measures:
        """Return the measures of a text; ``source`` is where copies are looked for, by default the training text."""
        novelty = text_measures.compare_with_source(text, self.training if source is None else source, LONG)
        return Measures(
            real_words=text_measures.real_word_share(text, self.vocabulary),
            repetition=text_measures.repeated_share(text, LONG),
            novelty=novelty.share,
            longest_copy=novelty.longest_copy,
            distance=text_measures.jensen_shannon_distance(
                text_measures.count_ngrams(text, SHORT), self.held_out_counts
            ),
        )

    def measure_references(self) -> TextMeasures:
        """Return the measures of the held-out text, and of the end of the training text against all before it."""
        end = len(self.training) - len(self.held_out)
        return {
            HELD_OUT: [self.measure(self.held_out)],
            TRAINING: [self.measure(self.training[end:], self.training[:end])],
        }


def links_of(title: str) -> tuple[str, ...]:
    """Return the links that a setting needs, in the order of a chain of all links."""
    all_links = configured_chain(host().registry, {"links": ["all"]}, vocab_size=2).names
    return tuple(link for link in all_links if link in SETTINGS[title])


def write_texts(run: Path, folder: Path, characters: int, seeds: int) -> None:
    """Write the texts of all settings, with the seeds from 1 on, into a file for each setting that the folder lacks.

    Settings of the same links are written side by side, by a generator with these links alone.
    """
    missing = [title for title in SETTINGS if not texts_file(folder, title).exists()]
    with tempfile.TemporaryDirectory() as graphs:
        compiler = common.GeneratorCompiler(run, Path(graphs), "int8", threads=1) if missing else None
        for links in dict.fromkeys(map(links_of, missing)):
            assert compiler is not None
            titles = [title for title in missing if links_of(title) == links]
            started_at = time.perf_counter()
            texts = write_side_by_side(compiler.compile(links, {}), titles, characters, seeds)
            for i, title in enumerate(titles):
                text = json.dumps(texts[i * seeds : (i + 1) * seeds], ensure_ascii=False)
                texts_file(folder, title).write_text(text, encoding="utf-8")
            seconds = time.perf_counter() - started_at
            print(
                f"{run.name}: {', '.join(titles)}: {sum(map(len, texts)) / seconds:,.0f} characters/s", file=sys.stderr
            )


def texts_file(folder: Path, title: str) -> Path:
    return folder / f"{title}.json"


def write_side_by_side(generator: OnnxGenerator, titles: Sequence[str], characters: int, seeds: int) -> list[str]:
    """Return the texts of each seed of the first setting, then those of the second one, and so on."""
    chain = common.chain(generator)
    neutral = {link.name: {name: param.neutral for name, param in link.strategy.params.items()} for link in chain}
    blocks = [
        chain.param_arrays(
            seeds, {link: {**numbers, **SETTINGS[title].get(link, {})} for link, numbers in neutral.items()}
        )
        for title in titles
    ]
    params = {
        link: {name: np.concatenate([block[link][name] for block in blocks]) for name in numbers}
        for link, numbers in neutral.items()
    }
    rows = len(titles) * seeds
    request = Request(
        primes=[np.empty(0, np.int64)] * rows,
        seeds=[(seed, 0) for _ in titles for seed in range(1, seeds + 1)],
        chain=chain,
        params=params,
        max_tokens=characters,
    )
    symbols = generator.bundle.token_bytes
    tokens = common.tokens_by_row(generator.generate(request), rows)
    return [b"".join(symbols[token] for token in row).decode() for row in tokens]


def measure_run(path: Path, folder: Path, characters: int, seeds: int) -> TextMeasures:
    """Write and measure the texts of a run, but for what the folder has already."""
    folder.mkdir(parents=True, exist_ok=True)
    write_texts(path, folder, characters, seeds)
    measures_file = folder / "measures.json"
    stored = json.loads(measures_file.read_text(encoding="utf-8")) if measures_file.exists() else {}
    missing = [title for title in (HELD_OUT, *SETTINGS) if title not in stored]
    reference = Reference(Run(path), characters) if missing else None
    for title in missing:
        assert reference is not None
        if title == HELD_OUT:
            measures = reference.measure_references()
        else:
            texts = json.loads(texts_file(folder, title).read_text(encoding="utf-8"))
            measures = {title: [reference.measure(text) for text in texts]}
        stored |= {title: [dataclasses.asdict(text) for text in group] for title, group in measures.items()}
        measures_file.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    return {title: [Measures(**text) for text in stored[title]] for title in (HELD_OUT, TRAINING, *SETTINGS)}


def print_tables(measures: Mapping[str, TextMeasures]) -> dict[str, str]:
    """Print the measures of each run as a table in Markdown, and print and return the setting of each style."""
    for run, by_title in measures.items():
        print(f"\n| {run} | distance | real words | repetition | novelty | longest copy |\n|-|-|-|-|-|-|")
        for title, texts in by_title.items():
            m = mean(texts)
            print(
                f"| {title} | {m.distance:.4f} | {m.real_words:.2%} | {m.repetition:.2%} | {m.novelty:.2%} "
                f"| {max(text.longest_copy for text in texts)} |"
            )
    means = {run: {title: mean(texts) for title, texts in by_title.items()} for run, by_title in measures.items()}
    held_out = {run: by_title[HELD_OUT] for run, by_title in means.items()}
    settings = {title: {run: means[run][title] for run in means} for title in SETTINGS}
    print("\n| setting | distance | real words | repetition | novelty | within |\n|-|-|-|-|-|-|")
    for title, by_run in settings.items():
        m = mean(list(by_run.values()))
        words_lost = mean(list(held_out.values())).real_words - m.real_words
        ratio = statistics.fmean(by_run[run].repetition / held_out[run].repetition for run in held_out)
        bounds = [
            name
            for name, is_kept in (
                ("words", has_real_words(by_run, held_out)),
                ("repetition", repeats_little(by_run, held_out)),
            )
            if is_kept
        ]
        print(
            f"| {title} | {m.distance:.4f} | {-words_lost:+.2%} | {ratio:.2f} | {m.novelty:.2%} "
            f"| {', '.join(bounds) or 'none'} |"
        )
    styles = choose_styles(settings, held_out)
    print("\n" + "\n".join(f"{style}: {title}" for style, title in styles.items()))
    return styles


def draw_picture(measures: Mapping[str, TextMeasures], styles: Mapping[str, str], path: Path) -> None:
    """Draw a panel for each measure, a line for each setting and a mark for each run, with the bounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, Callable[[Measures, Measures], float]] = {
        "distance to the held-out text": lambda m, held_out: m.distance,
        "real words, in points more\nthan in the held-out text": lambda m, held_out: (
            100 * (m.real_words - held_out.real_words)
        ),
        "repetition, in multiples of\nthat of the held-out text": lambda m, held_out: (
            m.repetition / held_out.repetition
        ),
        "new 20-grams, in %": lambda m, held_out: 100 * m.novelty,
    }
    bounds = {1: -100 * MAX_WORD_LOSS, 2: MAX_REPETITION_RATIO}
    labels = {title: title for title in SETTINGS} | {title: f"{style}: {title}" for style, title in styles.items()}
    lines = range(len(SETTINGS))
    figure = Figure(figsize=(11, 1.5 + 0.3 * len(SETTINGS)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for i, (label, function) in enumerate(panels.items()):
        for marker, (run, by_title) in zip("osD^v", measures.items(), strict=False):
            held_out = mean(by_title[HELD_OUT])
            numbers = [function(mean(by_title[title]), held_out) for title in SETTINGS]
            axes[i].plot(numbers, lines, marker, label=run, alpha=0.8)
        if i in bounds:
            axes[i].axvline(bounds[i], color="black", linestyle="--", linewidth=1)
        axes[i].set_xlabel(label)
        axes[i].grid(alpha=0.3)
    axes[2].set_xscale("log")
    axes[0].set_yticks(lines, labels.values())
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(measures))
    with path.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="keeps texts and measures")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--characters", type=int, default=100_000, help="of each text")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    measures = {
        run.name: measure_run(run, options.folder / run.name, options.characters, options.seeds) for run in options.runs
    }
    styles = print_tables(measures)
    if options.picture:
        draw_picture(measures, styles, options.picture)


if __name__ == "__main__":
    main()
