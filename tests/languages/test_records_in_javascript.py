"""Records in JavaScript: they are those of Python, and end where those end."""

from __future__ import annotations

from pathlib import Path

import pytest
from javascript import PAGE, RUNTIMES, run_javascript, write_in_javascript
from node_packages import needs_node
from test_bad_files import rewritten

import gentext
from gentext import WrittenText

pytestmark = pytest.mark.usefixtures("warm_processes")
#: How many records are written, with seed 1.
COUNT = 24


@pytest.fixture(scope="module")
def records(tiny_records_run: Path) -> list[WrittenText]:
    """Records, of which some end and some are cut."""
    written = gentext.load(tiny_records_run / "generator.onnx").write_many(count=COUNT, seed=1, length=40)
    assert min([record.finish for record in written].count(finish) for finish in ("end", "length")) > 3
    return written


@needs_node
@pytest.mark.parametrize("package", RUNTIMES)
def test_records_in_javascript(tiny_records_run: Path, records: list[WrittenText], package: str) -> None:
    file = tiny_records_run / "generator.onnx"
    ended = next(index for index, record in enumerate(records) if record.finish == "end" and record.text)
    results = write_in_javascript(
        package,
        file,
        *({"seed": 1, "stream": stream, "length": 40, "logprobs": 10} for stream in range(len(records))),
        {"session": ended},
        {"session": ended, "seed": 2, "prompt": "ab", "length": 5, "logprobs": 1, "echo": True},
        {"prompt": records[ended].text + "ab", "length": 1, "logprobs": 1, "echo": True},
        {"prompt": "\u00e9"},
    )
    for result, record in zip(results, records, strict=False):
        assert (result["text"], result["finish"]) == (record.text, record.finish)
        assert result["text"] == result["streamed"] == "".join(token["text"] for token in result["tokens"])
        assert [token["logprob"] for token in result["tokens"]] == pytest.approx(list(record.logprobs), abs=1e-4)
        if record.finish == "end":
            end = result["tokens"][-1]
            assert end["text"] == "" and all(logprob != end["logprob"] for text, logprob in end["top"] if text)
    again, added, whole, wrong = results[len(records) :]
    assert (again["text"], again["finish"], len(again["tokens"])) == ("", "end", 1), "the same seed draws the end again"
    logprobs = [token["logprob"] for token in added["prompt"]]
    assert logprobs == pytest.approx([token["logprob"] for token in whole["prompt"][-2:]], abs=1e-5)
    assert wrong["code"] == "prime"


@needs_node
def test_no_record_is_empty_in_javascript(eager_records_run: Path) -> None:
    file = eager_records_run / "generator.onnx"
    records = gentext.load(file).write_many(count=COUNT, seed=1, length=9)
    requests = [{"seed": 1, "stream": stream, "length": 9} for stream in range(COUNT)]
    texts = [result["text"] for result in write_in_javascript("onnxruntime-node", file, *requests)]
    assert texts == [record.text for record in records] and all(texts)


@needs_node
def test_record_that_ends_within_a_character_in_javascript() -> None:
    """Its boundary symbol has the sign for what is no character, as from the server."""
    texts = run_javascript(
        f"""
        import {{ RowText }} from "{PAGE.as_uri()}/row_text.js";
        const texts = ["a", "\\ufffd"].map((stop) => {{
          const text = new RowText({{ length: 9, stop: [stop], unfinished: [], tail: "", heldBack: "" }});
          text.feed([0x62], {{ logprob: -1, top: [] }});
          text.feed([0xe2], {{ logprob: -2, top: [] }});
          text.endRecord({{ logprob: -3, top: [] }});
          return [text.release().map((token) => [token.text, token.logprob]), text.text, text.finish];
        }});
        console.log(JSON.stringify(texts));
        """
    )
    assert texts == [
        [[["b", -1], ["", -2], ["\ufffd", -3]], "b\ufffd", "end"],
        [[["b", -1]], "b", "stop"],
    ]


@needs_node
def test_damaged_boundary_in_javascript(tiny_records_run: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_records_run / "generator.onnx", tmp_path / "file.onnx", "start", lambda start: "0")
    [result] = write_in_javascript("onnxruntime-node", path)
    assert result["code"] == "damaged" and "boundary symbol" in result["error"]
