"""The server: its API as clients see it, with OpenAI's own client, and real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import ExportTiny
from serving import ServerProcess, running_server

import gentext

LINKS = "match,penalties,bias,top_k,mirostat,temperature"


@pytest.fixture(scope="module")
def file(export_tiny: ExportTiny) -> Path:
    """A file whose chain has the links of OpenAI's parameters, one with states, and `match`."""
    return export_tiny(LINKS) / "generator.onnx"


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ServerProcess]:
    with running_server(f"tiny={file}", "--slots", "8") as process:
        yield process


@pytest.fixture(scope="module")
def model(file: Path) -> gentext.TextModel:
    return gentext.load(file)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_texts_are_those_of_the_library(server: ServerProcess, model: gentext.TextModel) -> None:
    answer = server.complete(prompt=["ab", "", "c"], n=4, max_tokens=50, seed=7, stop="a.", top_k=3, temperature=1.2)
    texts = model.write_many(["ab", "", "c"], count=4, length=50, seed=7, stop="a.", top_k=3, temperature=1.2)
    assert [choice["text"] for choice in answer["choices"]] == [text.text for text in texts]
    assert [choice["finish"] for choice in answer["choices"]] == [text.finish for text in texts]
    assert [choice["index"] for choice in answer["choices"]] == list(range(12))
    assert answer["seed"] == 7
    assert answer["usage"] == {
        "prompt_tokens": 4 * 3,
        "completion_tokens": sum(len(text.tokens) for text in texts),
        "total_tokens": 12 + sum(len(text.tokens) for text in texts),
    }


def test_openai_client(client: openai.OpenAI, model: gentext.TextModel) -> None:
    completion = client.completions.create(
        model="tiny", prompt="ab", max_tokens=30, seed=3, logprobs=2, echo=True, user="somebody", temperature=0.9
    )
    [written] = model.write_many(["ab"], length=30, seed=3, temperature=0.9, top_logprobs=2, echo=True)
    [choice] = completion.choices
    assert choice.text == "ab" + written.text and choice.finish_reason == "length"
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    expected = [*written.prime_logprobs, *written.logprobs]
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected[1:])
    assert choice.logprobs.text_offset == list(range(32))
    assert choice.logprobs.top_logprobs is not None and len(choice.logprobs.top_logprobs[5]) == 2

    chunks = list(
        client.completions.create(
            model="tiny", prompt="ab", max_tokens=300, n=2, seed=3, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [text.text for text in model.write_many(["ab"], count=2, length=300, seed=3)]
    assert chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == 4
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "gentext"


def test_openai_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"no model 'tony'\. Did you mean 'tiny'\?"):
        client.completions.create(model="tony", prompt="a")
    with pytest.raises(openai.BadRequestError, match="max_tokens = 'many'") as refused:
        client.completions.create(model="tiny", prompt="a", max_tokens="many")  # type: ignore[call-overload]
    assert refused.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError, match="seed"):
        client.completions.create(model="tiny", prompt="a", seed=-1)


def test_match(server: ServerProcess, model: gentext.TextModel) -> None:
    [choice] = server.complete(match="[a-e ]{5,9}!?", max_tokens=20, seed=5)["choices"]
    assert choice["text"] == model.write(match="[a-e ]{5,9}!?", length=20, seed=5)
    assert (choice["finish"], choice["finish_reason"]) == ("match", "stop")
    answer = server.post("/v1/completions", json_schema={"type": "boolean"}, max_tokens=20)
    assert answer.status_code == 400 and "cannot write 't', as in 'true'" in answer.json()["error"]["message"]
    [choice] = server.complete(match="abba", match_prime=True, prompt="a", max_tokens=9)["choices"]
    assert choice["text"] == "bba"
    answer = server.post("/v1/completions", match="[ab]{9}", max_tokens=8)
    assert answer.json()["error"]["message"].startswith("max_tokens = 8: the shortest text")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": []}, "prompt", "expected a text"),
    ({"prompt": [1, 2]}, "prompt", "expected"),
    ({"prompt": "日"}, "None", "日"),
    ({"max_tokens": 10**30}, "max_tokens", "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens", "at most"),
    ({"n": 0}, "n", "n = 0"),
    ({"n": 10**6}, "n", "at most"),
    ({"logprobs": 11}, "logprobs", "<= 10"),
    ({"temperature": -1}, "temperature", "temperature = -1"),
    ({"temperature": "hot"}, "temperature", "expected a number"),
    ({"best_of": 3}, "best_of", "does not support"),
    ({"suffix": "x"}, "suffix", "does not support"),
    ({"tempreature": 1}, "tempreature", "Did you mean 'temperature'"),
    ({"top_p": 0.5}, "top_p", "lacks its link"),
    ({"logit_bias_file": "/etc/passwd"}, "logit_bias_file", "no parameter"),
    ({"json_schema": "/etc/passwd"}, "json_schema", "json_schema"),
    ({"stop": ["a"], "match": "a"}, "None", "match"),
    ({"match": "(?=a)"}, "match", "look-ahead"),
    ({"seed": 2**64}, "seed", "seed"),
    ({"stream_options": {"x": 1}}, "stream_options", "x"),
]


@pytest.mark.parametrize(("fields", "parameter", "words"), REFUSED)
def test_what_is_refused(server: ServerProcess, fields: dict[str, Any], parameter: str, words: str) -> None:
    answer = server.post("/v1/completions", **fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert str(error["param"]) == parameter and words in error["message"], error
    assert error["type"] == "invalid_request_error"


def test_neutral_settings_are_accepted(server: ServerProcess, model: gentext.TextModel) -> None:
    neutral = {"top_p": 1, "frequency_penalty": 0, "logit_bias": {}, "best_of": 1, "suffix": None, "user": "x"}
    [choice] = server.complete(prompt="a", max_tokens=20, seed=1, **neutral)["choices"]
    assert choice["text"] == model.write("a", length=20, seed=1)


def test_bias(server: ServerProcess, model: gentext.TextModel) -> None:
    token = model.symbols.index("a")
    [choice] = server.complete(max_tokens=40, seed=2, logit_bias={str(token): 100})["choices"]
    assert choice["text"] == "a" * 40


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"prompt": "\xff"}', b"[" * 10**5, b"NaN"])
def test_bodies_that_are_no_request(server: ServerProcess, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text


def test_scores(server: ServerProcess, model: gentext.TextModel) -> None:
    answer = server.post("/score", text="abba cab.").json()
    assert answer["logprob"] == pytest.approx(-model.score("abba cab.").nats)
    assert len(answer["token_logprobs"]) == 9
    assert server.post("/score", text="abb\u2603a cab.", unknown="skip").json() == {**answer, "unknown": 1}
    echo = server.complete(prompt="abba cab.", max_tokens=0, echo=True, logprobs=0)
    [choice] = echo["choices"]
    assert choice["text"] == "abba cab." and len(choice["logprobs"]["token_logprobs"]) == 9


def test_best(server: ServerProcess, model: gentext.TextModel) -> None:
    answer = server.post("/best", prompt="a", count=3, length=4).json()
    best = model.best("a", count=3, length=4)
    assert [text["text"] for text in answer["texts"]] == [text.text for text in best]
    assert answer["complete"] and answer["exact"]


def test_events_of_a_stream(server: ServerProcess) -> None:
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json={"prompt": "a", "max_tokens": 5, "stream": True, "seed": 4}
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    last = json.loads(lines[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length" and last["seed"] == 4


def test_problems_within_a_stream(server: ServerProcess) -> None:
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json={"prompt": "a日", "max_tokens": 5, "stream": True}
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert "日" in json.loads(lines[0].removeprefix("data: "))["error"]["message"]
    assert lines[-1] == "data: [DONE]"
