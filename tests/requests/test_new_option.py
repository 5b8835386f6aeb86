"""A new option of all writers is one line: each door has it, and it goes to the worker and into sessions."""

from __future__ import annotations

import subprocess
import sys

from conftest import ExportTiny

#: Runs with one more line in the declaration, which is patched before anything reads it.
PROGRAM = '''
import importlib.util, inspect, io, sys
from pathlib import Path

LINE = """
    tone: Annotated[int | None, Option("how a text sounds, as ``seed`` decides", None, 0, none="as the model likes")]
"""
NAME = "gentext.requests.declaration"
spec = importlib.util.find_spec(NAME)
assert NAME not in sys.modules
before, place, after = spec.loader.get_source(NAME).partition("class WriterArguments(MatchArguments, total=False):")
docstring, end, lines = after.partition('is a line here."""\\n')
module = importlib.util.module_from_spec(spec)
sys.modules[NAME] = module
exec(compile(before + place + docstring + end + LINE + lines, spec.origin, "exec"), vars(module))

import gentext
from gentext.cli.app import main
from gentext.errors import UsageError
from gentext.generation.slots import Slots
from gentext.plugins.server.http import app
from gentext.plugins.server.http.requests import read_completion
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import encode_frame, read_frames
from gentext.plugins.server.worker.answers import describe_model
from gentext.plugins.server.worker.texts import begin_text
from gentext.sessions.session import unpack
from gentext.sessions.session_keys import SessionKeys

path = Path(sys.argv[1])
model = gentext.load(path)

# the library
for method in (model.write, model.stream, model.write_many, model.records):
    assert inspect.signature(method).parameters["tone"].default is None
assert model.write(length=3, seed=1, tone=5) == model.write(length=3, seed=1)
for write in (model.write, model.stream, lambda **options: model.write_many([""], **options)):
    try:
        write(length=3, tone=-1)
    except UsageError as error:
        assert str(error) == "tone = -1: expected a whole number from 0", error
    else:
        raise AssertionError

# the command
assert main(["sample", str(path), "--length", "3", "--tone", "-1"]) == 2
assert main(["sample", str(path), "--length", "3", "--seed", "1", "--tone", "5"]) == 0
main(["sample", "--help"])

# the server
links, keys = describe_model(model), SessionKeys.new()
completion = read_completion({"prompt": "", "tone": 5, "max_tokens": 3}, links, Limits(), keys)
[job] = read_frames(io.BytesIO(encode_frame(completion.jobs()[0])))
assert job.options["tone"] == 5
try:
    read_completion({"tone": -1}, links, Limits(), keys)
except Problem as problem:
    assert problem.message == "tone = -1: expected `int` >= 0" and problem.parameter == "tone", problem.message
else:
    raise AssertionError
row = "<tr><td><code>tone</code></td><td>integer from 0</td><td>none</td>"
row += "<td>how a text sounds, as <code>seed</code> decides; none: as the model likes</td></tr>"
assert row in app.DOCS.decode()

# the worker, and a session
text = begin_text(model, job)
slots = Slots(model._sampler.model, model.bundle, 1)
text.join(slots)
[*_, last] = [text.take_piece(piece) for _ in iter(lambda: slots.busy, 0) for piece in slots.advance()]
assert unpack(last.session).settings["tone"] == 5
for given, tone in (({}, 5), ({"tone": 6}, 6), ({"tone": None}, 5)):
    body = {"session": keys.seal(last.session)} | given
    assert read_completion(body, links, Limits(), keys).jobs()[0].options["tone"] == tone
'''


def test_a_new_option_is_one_line(export_tiny: ExportTiny) -> None:
    path = export_tiny("top_k,temperature") / "generator.onnx"
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--tone -1: expected a whole number from 0" in done.stderr
    help_text = " ".join(done.stdout.replace("│", " ").split())
    assert "--tone <int> How a text sounds, as --seed decides. Default: as the model likes." in help_text
