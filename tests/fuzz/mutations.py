"""Values that programs trip over, and changes of bytes, of texts and of plain data."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

#: Numbers at the edges of types and of what memory can hold. None between 10 and 10^9: such a size may be meant.
NUMBERS: list[Any] = [
    *(0, 1, 2, 3, 7, -1, -2, 2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-300, 5e-324, 1e18, 1e300, float("nan"), float("inf"), -float("inf")),
]
#: Texts: empty, of spaces, with control characters, long, like a path, like a number, not valid anywhere.
TEXTS = [
    *("", " ", "\n", "\0", "\x1b[31m", "\u202e", "\N{SNOWMAN}", "🙂", "e\u0301", "x" * 5000, "9" * 5000, "-", "--"),
    *(
        "nan",
        "1e999",
        "-1",
        "0x10",
        "True",
        "null",
        "[]",
        "{}",
        "..",
        "/",
        "/dev/null",
        "~nobody",
        "a/b",
        "a,b,,c",
        "a=b",
    ),
    *("float64", "bfloat16", "int64", "lstm", "char", "byte", "top_k", "temperature", "cuda", "model.onnx", "\udcff"),
]
text = st.sampled_from(TEXTS) | st.text(max_size=8)
#: Text that UTF-8 can hold.
clean_text = text.filter(lambda characters: "\udcff" not in characters)
number = st.sampled_from(NUMBERS)


def nested(depth: int, table: bool = False) -> Any:
    """Return a list within a list within a list, or tables."""
    content: Any = 0
    for _ in range(depth):
        content = {"a": content} if table else [content]
    return content


#: Plain data, as JSON and TOML have it.
plain = (
    number
    | clean_text
    | st.sampled_from(
        [None, True, False, [], {}, [0] * 1000, [[]], {"": 0}, [None], nested(50), nested(50, table=True)]
    )
)


def paths_in(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each part of plain data, as keys and indices."""
    keys: list[Any] = []
    if isinstance(content, dict):
        keys = list(content)
    elif isinstance(content, list):
        keys = list(range(len(content)))[:50]
    return [path] * bool(path) + [way for key in keys for way in paths_in(content[key], (*path, key))]


@st.composite
def changed_data(draw: st.DrawFn, content: Any, changes: int = 3) -> Any:
    """Plain data with one to some parts changed, removed, added, repeated or swapped."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, changes))):
        ways = paths_in(content)
        if not ways:
            return copy.deepcopy(draw(plain))
        *way, key = draw(st.sampled_from(ways))
        parent = content
        for step in way:
            parent = parent[step]
        change = draw(st.sampled_from(["replace", "replace", "near", "remove", "add", "repeat", "swap"]))
        if change == "replace":
            parent[key] = copy.deepcopy(draw(plain))
        elif change == "near":
            parent[key] = copy.deepcopy(draw(near(parent[key])))
        elif change == "remove":
            del parent[key]
        elif change == "add" and isinstance(parent, dict):
            parent[draw(clean_text)] = copy.deepcopy(draw(plain))
        elif change == "repeat" and isinstance(parent, list):
            parent.extend([parent[key]] * draw(st.sampled_from([1, 2, 1000])))
        else:
            other = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
            parent[key], parent[other] = parent[other], parent[key]
    return content


def near(content: Any) -> st.SearchStrategy[Any]:
    """Data of the same type as ``content``."""
    if isinstance(content, bool):
        return st.just(not content)
    if isinstance(content, int):
        return st.integers(content - 2, content + 2) | st.sampled_from([n for n in NUMBERS if isinstance(n, int)])
    if isinstance(content, float):
        return st.floats(width=64)
    if isinstance(content, str):
        return clean_text | st.just(content[:-1]) | st.just(content * 2)
    if isinstance(content, list):
        return st.just(content[:-1]) | st.just(content * 2) | st.just(content[::-1])
    return plain


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes, changes: int = 4) -> bytes:
    """Bytes of which some were flipped, cut off, cut out, repeated or put in."""
    array = bytearray(content)
    for _ in range(draw(st.integers(1, changes))):
        place = draw(st.integers(0, max(0, len(array) - 1)))
        change = draw(st.sampled_from(["flip", "flip", "set", "cut off", "cut out", "repeat", "insert"]))
        end = place + draw(st.sampled_from([1, 2, 8, 100, 4096]))
        if change == "flip" and array:
            array[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "set" and array:
            array[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif change == "cut off":
            del array[place:]
        elif change == "cut out":
            del array[place:end]
        elif change == "repeat":
            array[place:place] = array[place:end]
        else:
            array[place:place] = draw(
                st.binary(max_size=8) | st.sampled_from([b"\xff" * 10, b"\0" * 100, b"\xef\xbb\xbf"])
            )
    return bytes(array)
