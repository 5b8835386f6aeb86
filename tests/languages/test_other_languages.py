"""JavaScript and C++ write what Python writes: texts and records, and the examples with their builds of onnxruntime."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import SHALLOW, TINY, Gen
from javascript import PAGE, ROOT, RUNTIMES, run_javascript, write_in_javascript
from node_packages import NODE, find_package, needs_node

import gentext

pytestmark = pytest.mark.usefixtures("warm_processes")
CPP = ROOT / "examples" / "cpp"
#: Links that carry states, and those that take noise, among the usual ones.
CHAIN = "dry,xtc,top_k,temperature,mirostat"


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_run: Path) -> Path:
    """The generator of a chain with links that carry states and take noise, in fp32."""
    folder = tmp_path_factory.mktemp("stateful")
    code, _, err = gen("export", tiny_run, "-o", folder, "--precision", "fp32", "--chain", CHAIN)
    assert code == 0, err
    return folder / "generator.onnx"


@pytest.fixture(scope="module")
def byte_generator(tmp_path_factory: pytest.TempPathFactory, gen: Gen) -> Path:
    """The generator of a model whose symbols are bytes, which has learned characters of one to four of them."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "text.txt").write_text("Ää €uro 😀\n日本語。" * 300, encoding="utf-8")
    command = ["train", folder / "text.txt", "--run", folder / "run", *TINY, *SHALLOW, "--steps", 40]
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


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the example for Node, with the npm packages of the tests."""
    folder, packages = tmp_path_factory.mktemp("node"), find_package("onnxruntime-node").parent
    for name in ("write.js", "package.json"):
        text = (ROOT / "examples" / "node" / name).read_text().replace("../../data/page", PAGE.as_uri())
        (folder / name).write_text(text)
    (folder / "node_modules").symlink_to(packages)
    return [str(NODE), str(folder / "write.js")]


@needs_node
def test_node_example(gen: Gen, node_example: list[str], stateful: Path) -> None:
    check_example(gen, node_example, stateful, "--set=temperature=0.9")


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


@pytest.mark.slow
def test_cpp_example(gen: Gen, cpp_example: Path, stateful: Path) -> None:
    check_example(gen, [str(cpp_example)], stateful, "--set", "temperature.temperature=0.9")


@pytest.mark.slow
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


@pytest.mark.slow
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


#: Writes in parts, each of which is aborted as soon as it shows something, and then once behind a prompt.
JAVASCRIPT_ABORTS = f"""
import {{ readFileSync }} from "node:fs";
import {{ Generator }} from "{PAGE.as_uri()}/generator.js";
const [runtime, file, words] = process.argv.slice(1);
const ort = (await import(runtime)).default;
const sessionOptions = {{ intraOpNumThreads: 1 }};
const generator = await Generator.open(ort, new Uint8Array(readFileSync(file)), {{ sessionOptions }});
let {{ length, prompt, ...request }} = JSON.parse(words);
const parts = [];
const added = [];
let [session, left, finish] = [null, length, "abort"];
while (finish === "abort") {{
  const controller = new AbortController();
  const onText = () => controller.abort();
  const {{ signal }} = controller;
  const part = await generator.write({{ ...request, prompt, session, length: left, signal, onText }});
  prompt = "";
  parts.push(part.text);
  ({{ session, finish }} = part);
  left -= part.text.length;
  const heldBack = session.text.heldBack;
  if (finish === "abort" && heldBack) {{
    added.push([heldBack, (await generator.write({{ session, prompt: "ab", length: 5 }})).text]);
  }}
}}
console.log(JSON.stringify({{ parts, finish, added }}));
"""


@needs_node
def test_aborts_within_stop_strings_in_javascript(gen: Gen, stateful: Path) -> None:
    """What may become a stop string when a text is aborted is not shown, and comes first when it goes on."""
    options = ["--prime", "ab c", "--seed", 5, "--length", 200]
    text = sample(gen, stateful, *options)["text"]
    stop = text[60:64]
    runtime = find_package("onnxruntime-node") / RUNTIMES["onnxruntime-node"]
    request = {"prompt": "ab c", "seed": 5, "length": 200, "stop": [stop]}
    result = run_javascript(JAVASCRIPT_ABORTS, str(runtime), str(stateful), json.dumps(request))
    assert (result["finish"], "".join(result["parts"])) == ("stop", text[: text.index(stop)])
    assert result["added"] and all(whole.startswith(held) for held, whole in result["added"])
    assert all(len(whole) == len(held) + 5 for held, whole in result["added"])


@needs_node
def test_node_example_of_records(node_example: list[str], tiny_records_run: Path) -> None:
    check_records(node_example, tiny_records_run / "generator.onnx")


@pytest.mark.slow
def test_cpp_example_of_records(cpp_example: Path, tiny_records_run: Path) -> None:
    check_records([str(cpp_example)], tiny_records_run / "generator.onnx")


def check_records(command: list[str], file: Path) -> None:
    """An example writes the records that the library writes, and ends where they end."""
    finishes, model = set(), gentext.load(file)
    for seed in range(6):
        [record] = model.write_many(count=1, seed=seed, length=40)
        options = ["--seed", str(seed), "--length", "40"]
        process = subprocess.run([*command, str(file), *options], capture_output=True, text=True, check=True)
        assert process.stdout == record.text + "\n"
        finishes.add(record.finish)
    assert finishes == {"end", "length"}
