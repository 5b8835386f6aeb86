"""JavaScript and C++ write what Python writes: noise, decoding, and the examples with their builds of onnxruntime."""

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
from conftest import TINY, Gen
from node_packages import NODE, find_package, needs_node

from gentext.noise import counter_plane, uniforms

pytestmark = pytest.mark.usefixtures("warm_processes")
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "data" / "page"
CPP = ROOT / "examples" / "cpp"
#: Links that carry states, and those that take noise, among the usual ones.
CHAIN = "dry,xtc,top_k,temperature,mirostat"
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
#: Runs requests one after the other; in place of a session stands the number of the request whose session it is.
JAVASCRIPT_WRITER = f"""
import {{ readFileSync }} from "node:fs";
import {{ Generator }} from "{PAGE.as_uri()}/generator.js";
const [runtime, file, requests] = process.argv.slice(1);
const module = await import(runtime);
const ort = module.default?.InferenceSession ? module.default : module;
const isWeb = runtime.includes("wasm");
if (isWeb) ort.env.wasm.numThreads = 1;
const sessionOptions = isWeb ? {{ executionProviders: ["wasm"] }} : {{ intraOpNumThreads: 1 }};
const results = [];
try {{
  const generator = await Generator.open(ort, new Uint8Array(readFileSync(file)), {{ sessionOptions }});
  for (const request of JSON.parse(requests)) {{
    let streamed = "";
    const join = (tokens) => tokens.map((token) => token.text).join("");
    const onText = ({{ text, tokens }}) => (streamed += join(tokens) === text ? text : "?");
    const session = request.session === undefined ? null : results[request.session].session;
    try {{
      const result = await generator.write({{ ...request, session, onText }});
      results.push({{ ...result, seed: String(result.seed), streamed }});
    }} catch (error) {{
      results.push({{ error: error.message, code: error.code }});
    }}
  }}
}} catch (error) {{
  results.push({{ error: error.message, code: error.code }});
}}
console.log(JSON.stringify(results, (key, entry) => (key === "session" ? undefined : entry)));
"""
RUNTIMES = {"onnxruntime-web": "dist/ort.wasm.min.mjs", "onnxruntime-node": "dist/index.js"}


def run_javascript(script: str, *arguments: str) -> Any:
    """Return the JSON that a module prints in Node."""
    command = [str(NODE), "--input-type=module", "--eval", script, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def write_in_javascript(package: str, file: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of requests, or the errors, of a generator over an npm package."""
    runtime = find_package(package) / RUNTIMES[package]
    results: list[dict[str, Any]] = run_javascript(JAVASCRIPT_WRITER, str(runtime), str(file), json.dumps(requests))
    return results


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


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_run: Path) -> Path:
    """The generator of a chain with links that carry states and take noise, in fp32."""
    folder = tmp_path_factory.mktemp("stateful")
    code, _, err = gen("export", tiny_run, "-o", folder, "--precision", "fp32", "--chain", CHAIN)
    assert code == 0, err
    return folder / "generator.onnx"


@pytest.fixture(scope="module")
def byte_generator(tmp_path_factory: pytest.TempPathFactory, gen: Gen, operators: None) -> Path:
    """The generator of a model whose symbols are bytes, which has learned characters of one to four of them."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "text.txt").write_text("Ää €uro 😀\n日本語。" * 300, encoding="utf-8")
    command = ["train", folder / "text.txt", "--run", folder / "run", *TINY, "--steps", 40]
    code, _, err = gen(*command, "--set", "tokenizer.name=byte", "--export-precision", "fp32")
    assert code == 0, err
    return folder / "run" / "generator.onnx"


def sample(gen: Gen, file: Path, *options: object) -> dict[str, Any]:
    """Return what `gen sample --json` says of the last text."""
    code, out, err = gen("sample", file, "--json", *options)
    assert code == 0, err
    text: dict[str, Any] = json.loads(out.splitlines()[-1])
    return text


@needs_node
@pytest.mark.parametrize("package", RUNTIMES)
def test_texts_in_javascript(gen: Gen, stateful: Path, package: str) -> None:
    settings = {"mirostat": 2, "mirostat_tau": 2.5, "dry_multiplier": 0.8, "xtc_probability": 0.5, "temperature": 0.9}
    options = [word for name, number in settings.items() for word in (f"--{name.replace('_', '-')}", number)]
    request = {"prompt": "ab c", "seed": 5, "stream": 3, "parameters": settings}
    first, whole, further, stopped, replaced, wrong = write_in_javascript(
        package,
        stateful,
        request | {"length": 130},
        request | {"length": 300, "logprobs": 3},
        {"session": 0, "length": 170},
        request | {"length": 300, "stop": ["e", "zz"]},
        request | {"prompt": "ab c", "length": 20, "stop": ["b c"]},
        {"prompt": "ab\u00e9"},
    )
    expected = sample(gen, stateful, "--prime", "ab c", "--seed", 5, "--count", 4, "--length", 300, *options)
    assert whole["text"] == whole["streamed"] == expected["text"]
    assert [token["logprob"] for token in whole["tokens"]] == pytest.approx(expected["logprobs"], abs=1e-4)
    assert all(len(token["top"]) == 3 and token["top"][0][1] >= token["top"][2][1] for token in whole["tokens"])
    assert first["text"] + further["text"] == expected["text"]
    assert stopped["text"] == stopped["streamed"] == expected["text"].split("e")[0]
    assert (stopped["finish"], whole["finish"]) == ("stop", "length")
    assert replaced["text"] == expected["text"][:20], "a stop string that ends in the prompt does not count"
    assert (wrong["code"], "'é'" in wrong["error"] or '"é" at position 2' in wrong["error"]) == ("prime", True)


@needs_node
@pytest.mark.parametrize("package", RUNTIMES)
def test_bytes_in_javascript(gen: Gen, byte_generator: Path, package: str) -> None:
    expected = sample(gen, byte_generator, "--prime", "日本", "--seed", 1, "--length", 100)["text"]
    # Where wrong bytes stand, one byte can complete two characters, of which a text may end behind the first.
    middle = next((at for at in range(30, 70) if expected[at - 1] == "\ufffd" != expected[at]), 40)
    request = {"prompt": "日本", "seed": 1}
    first, whole, further, stopped = write_in_javascript(
        package,
        byte_generator,
        request | {"length": middle},
        request | {"length": 100},
        {"session": 0, "length": 100 - middle},
        request | {"length": 100, "stop": ["€", "r"]},
    )
    assert whole["text"] == whole["streamed"] == expected
    assert first["text"] + further["text"] == expected
    options = ["--prime", "日本", "--seed", 1, "--length", 100, "--stop", "€", "--stop", "r"]
    assert stopped["text"] == sample(gen, byte_generator, *options)["text"]


@needs_node
def test_wrong_requests_in_javascript(stateful: Path, tmp_path: Path, tiny_run: Path) -> None:
    package = "onnxruntime-node"
    results = write_in_javascript(
        package,
        stateful,
        {"parameters": {"temperature": -1}},
        {"parameters": {"heat": 1}},
        {"parameters": {"top_k": 1.5}},
        {"length": 0},
        {"logprobs": 11},
        {"stop": [""]},
        {"seed": -1},
    )
    assert [result["code"] for result in results] == ["parameter"] * 7
    assert all("\n" not in result["error"] and "expected" in result["error"] for result in [results[0], *results[2:]])
    content = stateful.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    files = {
        "damaged": bytes(damaged),
        "format": content.replace(b"gentext.format\x12\x014", b"gentext.format\x12\x015"),
        "not_generator": (tiny_run / "model.onnx").read_bytes(),
    }
    for code, broken in files.items():
        (tmp_path / code).write_bytes(broken)
        [result] = write_in_javascript(package, tmp_path / code)
        assert result["code"] == code, result
    for broken in (b"", b"no model", content[:1000]):
        (tmp_path / "file").write_bytes(broken)
        [result] = write_in_javascript(package, tmp_path / "file")
        assert result["code"] in ("damaged", "not_generator"), result


@needs_node
def test_node_example(gen: Gen, stateful: Path, tmp_path: Path) -> None:
    folder = find_package("onnxruntime-node").parent
    for name in ("write.js", "package.json"):
        text = (ROOT / "examples" / "node" / name).read_text().replace("../../data/page", PAGE.as_uri())
        (tmp_path / name).write_text(text)
    (tmp_path / "node_modules").symlink_to(folder)
    check_example(gen, [str(NODE), str(tmp_path / "write.js")], stateful, "--set=temperature=0.9")


@pytest.fixture(scope="module")
def cpp_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in C++, built with the installed library."""
    if not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("cmake or g++ is not installed")
    folder = tmp_path_factory.mktemp("cpp")
    configured = subprocess.run(["cmake", "-S", CPP, "-B", folder], capture_output=True, text=True)
    if configured.returncode:
        pytest.skip("onnxruntime or nlohmann_json for C++ is not installed: libonnxruntime-dev, nlohmann-json3-dev")
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return folder / "write"


def test_cpp_example(gen: Gen, cpp_example: Path, stateful: Path) -> None:
    check_example(gen, [str(cpp_example)], stateful, "--set", "temperature.temperature=0.9")


def test_cpp_example_of_bytes(gen: Gen, cpp_example: Path, byte_generator: Path) -> None:
    options = ["--prime", "日本", "--seed", "1", "--length", "100"]
    process = subprocess.run([cpp_example, byte_generator, *options], capture_output=True, text=True, errors="replace")
    expected = sample(gen, byte_generator, *options)
    if "\ufffd" not in expected["text"]:
        assert process.stdout == expected["prime"] + expected["text"] + "\n"


def check_example(gen: Gen, command: list[str], file: Path, *temperature: str) -> None:
    """An example writes what `gen sample` writes, and says in one line what it cannot do."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], capture_output=True, text=True)

    options = ["--prime", "ab c", "--seed", "5", "--length", "300"]
    expected = sample(gen, file, *options, "--temperature", "0.9", "--stop", "h")
    assert run(str(file), *options, *temperature, "--stop", "h").stdout == "ab c" + expected["text"] + "\n"
    whole = sample(gen, file, *options)
    assert run(str(file), *options).stdout == "ab c" + whole["text"] + "\n"
    wrong = [["--prime", "é"], ["--set", "top_k.top_k=-1"], ["--set", "heat=1"], ["--no-such", "1"], ["--seed", "x"]]
    for words in ([str(file.with_name("model.onnx"))], ["no-such-file"], *([str(file), *pair] for pair in wrong)):
        result = run(*words)
        lines = [line for line in result.stderr.splitlines() if line.startswith("write: ")]
        assert (result.returncode, len(lines)) == (1, 1), result.stderr


def test_cpp_library_too_old(cpp_example: Path, tmp_path: Path) -> None:
    (tmp_path / "old.c").write_text(
        "typedef struct { const void* (*api)(unsigned); const char* (*version)(void); } Base;\n"
        "static const void* api(unsigned version) { return 0; }\n"
        'static const char* version(void) { return "1.17.3"; }\n'
        "static const Base base = {api, version};\n"
        "const Base* OrtGetApiBase(void) { return &base; }\n"
    )
    library = tmp_path / "old.so"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "old.c", "-o", library], check=True)
    process = subprocess.run([cpp_example, "file"], capture_output=True, text=True, env={"LD_PRELOAD": str(library)})
    assert (process.returncode, "onnxruntime 1.17.3 is too old" in process.stderr) == (1, True), process.stderr
