"""JavaScript and C++ draw the noise that Python draws, and JavaScript decodes bytes as Python does."""

from __future__ import annotations

import codecs
import json
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from javascript import PAGE, ROOT, run_javascript
from node_packages import needs_node

from gentext.noise import counter_plane, uniforms

CPP = ROOT / "examples" / "cpp"
#: Names of links, and numbers that they take at a position.
TAKERS = [("draw", 1), ("xtc", 1), ("a plugin's", 3), ("x" * 55, 2)]

#: Prints the noise of the cases that it gets: lists of seed, stream, name, position, count and columns.
JAVASCRIPT_NOISE = f"""
import {{ counterPlane, uniforms }} from "{PAGE.as_uri()}/noise.js";
const cases = JSON.parse(process.argv[1]);
const noise = ([seed, stream, ...rest]) => [...uniforms(BigInt(seed), BigInt(stream), ...rest)].map((u) => u * 2 ** 24);
console.log(JSON.stringify({{ plane: String(counterPlane("draw")), noise: cases.map(noise) }}));
"""
CPP_NOISE = r"""
#include <iostream>
#include "noise.hpp"
int main(int count, char** words) {
  std::cout << gentext::counter_plane("draw") << "\n";
  for (int at = 1; at < count; at += 6) {
    const auto number = [&](int word) { return std::stoull(words[at + word]); };
    for (float u : gentext::uniforms(number(0), number(1), words[at + 2], number(3), number(4), number(5))) {
      std::cout << static_cast<long>(u * 0x1p24) << " ";
    }
    std::cout << "\n";
  }
}
"""
JAVASCRIPT_DECODER = f"""
import {{ TextReader }} from "{PAGE.as_uri()}/tokenizer.js";
const decode = (bytes) => {{
  let reader = new TextReader();
  const pieces = bytes.map((byte) => {{
    reader = new TextReader(reader.unfinished); // a copy of the state goes on
    return reader.read([byte]);
  }});
  return [...pieces, reader.end()];
}};
console.log(JSON.stringify(JSON.parse(process.argv[1]).map(decode)));
"""


def documented_vectors() -> list[tuple[tuple[Any, ...], list[int]]]:
    """Return the test vectors of docs/formats.md."""
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"^VECTORS = (\[.*?^\])", page, re.MULTILINE | re.DOTALL)
    assert found
    vectors: list[tuple[tuple[Any, ...], list[int]]] = eval(found[1])
    return vectors


def noise_cases() -> list[list[Any]]:
    """Return arguments of `uniforms`, those of the test vectors first; seed and stream are texts, for JSON."""
    rng = random.Random(1)
    seeds = [0, 7, 2**53 + 1, 2**64 - 1]
    documented = [[str(seed), str(stream), *others] for (seed, stream, *others), _ in documented_vectors()]
    return documented + [
        [str(rng.choice(seeds)), str(rng.choice(seeds)), name, rng.randrange(10**6), rng.randrange(1, 9), columns]
        for name, columns in TAKERS * 5
    ]


def expected_noise(cases: Sequence[Sequence[Any]]) -> list[list[int]]:
    vectors = [numbers for _, numbers in documented_vectors()]
    computed = [
        [int(u * 2**24) for u in uniforms(int(seed), int(stream), *others).ravel()] for seed, stream, *others in cases
    ]
    return vectors + computed[len(vectors) :]


@needs_node
def test_noise_in_javascript() -> None:
    cases = noise_cases()
    noise = run_javascript(JAVASCRIPT_NOISE, json.dumps(cases))
    assert noise == {"plane": str(counter_plane("draw")), "noise": expected_noise(cases)}


@pytest.mark.slow
def test_noise_in_cpp(tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    cases = noise_cases()
    (tmp_path / "noise.cpp").write_text(CPP_NOISE)
    program = tmp_path / "noise"
    subprocess.run(["g++", "-std=c++20", f"-I{CPP}", tmp_path / "noise.cpp", "-o", program], check=True)
    words = [str(word) for case in cases for word in case]
    plane, *lines = subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout.splitlines()
    assert int(plane) == counter_plane("draw")
    assert [[int(number) for number in line.split()] for line in lines] == expected_noise(cases)


@needs_node
def test_decoding_in_javascript() -> None:
    rng = random.Random(2)
    pool = [0x41, 0x80, 0x9F, 0xA0, 0xC0, 0xC3, 0xE0, 0xE2, 0x82, 0xAC, 0xED, 0xEF, 0xBB, 0xBF, 0xF0, 0x90, 0xF4, 0xFF]
    texts = [rng.choices(pool, k=rng.randrange(1, 12)) for _ in range(2000)]
    expected = []
    for text in texts:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        expected.append([*(decoder.decode(bytes([byte])) for byte in text), decoder.decode(b"", final=True)])
    decoded = run_javascript(JAVASCRIPT_DECODER, json.dumps(texts))
    # Python decodes a surrogate's bytes later than browsers do, so only the whole texts are compared.
    assert ["".join(pieces) for pieces in decoded] == ["".join(pieces) for pieces in expected]
