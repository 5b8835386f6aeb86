"""The tutorial's notebook in a real kernel, and the bar that a cell shows."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
#: A cell in which the bar is shown at once, and which keeps what each update shows.
PROGRESS_CELL = """
from IPython.display import DisplayHandle
from gentext import console

console.SILENT_SECONDS = console.UPDATE_SECONDS = 0
updates, update = [], DisplayHandle.update
DisplayHandle.update = lambda handle, shown, **options: (updates.append(shown), update(handle, shown, **options))[1]
with console.progress("<b>reading</b>", total=4, unit="symbols") as bar:
    for _ in range(4):
        bar.advance()
        shown = bar._repr_html_()
print(len(updates), updates[-1], "<progress" in shown, "<b>" in shown, "100%" in shown)
"""


def run_notebook(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    result = client.execute()
    assert isinstance(result, nbformat.NotebookNode)
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that start a kernel
def test_the_bar_of_a_cell_is_replaced_in_place(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PROGRESS_CELL)])
    [bar, printed] = run_notebook(notebook, tmp_path).cells[0].outputs
    assert bar.data == {"text/plain": ""}
    assert printed.text == "4 {'text/plain': ''} True False True\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_of_the_tutorial_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs/tutorials/notebook.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("minutes=1,", "steps=30,")
    cells = run_notebook(notebook, tmp_path).cells
    html = [
        output.data.get("text/html", "") for cell in cells for output in cell.get("outputs", []) if "data" in output
    ]
    assert sum("<span" in text for text in html) >= 3
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert (tmp_path / "surprise.html").is_file() and (tmp_path / "runs/notebook/generator.onnx").is_file()
