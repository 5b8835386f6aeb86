"""A server of records: what /v1/models says of them, the end in streams and log-probabilities, its bias, /best."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Gen
from serving import ServerProcess, running_server

import gentext

pytestmark = pytest.mark.usefixtures("warm_processes")
WISH: dict[str, Any] = {"prompt": "ab", "n": 12, "seed": 1, "max_tokens": 40, "logprobs": 2, "echo": True}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, gen: Gen, tiny_records_run: Path) -> Path:
    """The generator of a chain with a bias."""
    folder = tmp_path_factory.mktemp("bias")
    code, _, err = gen("export", tiny_records_run, "--chain", "bias,temperature", "--output", folder)
    assert code == 0, err
    return folder / "generator.onnx"


@pytest.fixture(scope="module")
def model(file: Path) -> gentext.TextModel:
    return gentext.load(file)


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ServerProcess]:
    with running_server(f"records={file}", "--workers", "1", "--slots", "8") as process:
        yield process


def test_description(server: ServerProcess, model: gentext.TextModel) -> None:
    [described] = httpx.get(f"{server.url}/v1/models").json()["data"]
    records = model.bundle.records
    assert records is not None and described["symbols"][-1] == ""
    fields: dict[str, Any] = {
        "boundary": len(model.symbols) - 1,
        "longest": records.longest,
        "layout": "lines",
        "header": "",
    }
    fields["never_empty"] = True
    assert described["records"] == fields


@pytest.mark.parametrize("stop", [[], [". ", "cc", "dab"]], ids=str)
def test_streams_have_the_end(server: ServerProcess, model: gentext.TextModel, stop: list[str]) -> None:
    records = model.write_many(["ab"], count=12, seed=1, length=40, stop=stop)
    assert {"end"} < {record.finish for record in records} <= {"end", "length", "stop"}
    whole = server.complete(**WISH, stop=stop)
    stream = server.post("/v1/completions", **WISH, stop=stop, stream=True, stream_options={"include_usage": True})
    choices: list[dict[str, Any]] = [{"text": "", "tokens": [], "text_offset": []} for _ in records]
    events = [
        json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if line.startswith("data: {")
    ]
    for part in (part for event in events for part in event["choices"]):
        choice = choices[part["index"]]
        choice["text"] += part["text"]
        choice["finish"], choice["finish_reason"] = part.get("finish"), part["finish_reason"]
        for name in ("tokens", "text_offset"):
            choice[name] += part["logprobs"][name]
    assert events[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == sum(len(record.tokens) for record in records)
    for choice, answer, record in zip(choices, whole["choices"], records, strict=True):
        assert choice["text"] == answer["text"] == f"ab{record.text}"
        assert choice["finish"] == answer["finish"] == record.finish
        assert choice["finish_reason"] == ("length" if record.finish == "length" else "stop")
        assert choice["tokens"] == answer["logprobs"]["tokens"]
        assert choice["text_offset"] == answer["logprobs"]["text_offset"]
        if record.finish == "end":
            assert (choice["tokens"][-1], choice["text_offset"][-1]) == ("", len(record.text) + 2)
            assert answer["logprobs"]["token_logprobs"][-1] == pytest.approx(record.logprobs[-1], abs=1e-6)


def test_bias_on_the_end(server: ServerProcess, model: gentext.TextModel) -> None:
    boundary = len(model.symbols) - 1
    for bias, finish in ((-1000, "length"), (1000, "end")):
        answer = server.complete(prompt="ab", n=4, seed=1, max_tokens=20, logit_bias={str(boundary): bias})
        assert [choice["finish"] for choice in answer["choices"]] == [finish] * 4
    assert model.write("ab", seed=1, length=20, logit_bias=":1000") == ""


def test_most_probable_records(server: ServerProcess, model: gentext.TextModel) -> None:
    answer = server.post("/best", prompt="ab", count=4, length=3).json()
    best = model.best("ab", count=4, length=3)
    assert {text["finish"] for text in answer["texts"]} == {"end"}
    assert [text["text"] for text in answer["texts"]] == [text.text for text in best]
    assert [text["logprob"] for text in answer["texts"]] == pytest.approx([text.logprob for text in best], abs=1e-6)


def test_score_of_a_record(server: ServerProcess, model: gentext.TextModel) -> None:
    """Its end counts, an empty record has a probability too, and the most probable one has that of /best."""
    texts = ["ab", "", "abc. d"]
    for text, score in zip(texts, model.score_many(texts), strict=True):
        answer = server.post("/score", text=text).json()
        assert answer["tokens"] == [*text, ""] and answer["characters"] == len(text)
        assert answer["token_logprobs"] == pytest.approx(score.logprobs.tolist(), abs=1e-6)
        assert answer["logprob"] == pytest.approx(score.logprob, abs=1e-5)
        assert (answer["bits_per_character"] is None) is (text == "")
    [best] = model.best(count=1, length=3)
    assert server.post("/score", text=best.text).json()["logprob"] == pytest.approx(best.logprob, abs=1e-4)
    refused = server.post("/score", text="a\u2603")
    assert refused.status_code == 400 and "\u2603" in refused.json()["error"]["message"]
    answer = server.post("/score", text="a\u2603b", unknown="skip").json()
    assert answer == {**server.post("/score", text="ab").json(), "unknown": 1}
