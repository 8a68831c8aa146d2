"""The runner of the chapters: what it compares, and that it notices when text and program differ.
It knows chapters made for the test; the real ones are run by tutorials/run.py, as CI does."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("tutorials_run", ROOT / "tutorials" / "run.py")
run = importlib.util.module_from_spec(spec)
sys.modules["tutorials_run"] = run
spec.loader.exec_module(run)

CHAPTERS = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.md"))
LONGEST = 30  # lines of a block


def chapter(tmp_path, text):
    path = tmp_path / "01_test.md"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("loss 0.50", "loss 0.51", True),
        ("loss 0.50", "loss 0.54", False),
        ("loss 0.50", "lost 0.50", False),
        ("1,000 images", "1,001 images", True),
        ("(2, 3)", "(2,  3)", True),
        ("one 1", "one 1 2", False),
        ("-1.0", "1.0", False),
        ("1e-9", "1.02e-9", True),
    ],
)
def test_words_are_compared_as_they_are_and_numbers_nearly(said, printed, same):
    assert run.agree(said, printed) == same


def test_blocks_share_a_namespace_and_print_what_is_shown(tmp_path):
    text = "```python\nx = 2\n```\nthen\n```python\nprint(x * 3)\n```\n\n```text\n6\n```\n"
    assert run.run_here(chapter(tmp_path, text), refresh=False) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "the chapter says\n2\nand the program prints\n1"),
        ("```python\nprint(1)\n```\n", "prints, and no text block"),
        ("```python\nx = 1\n```\n```text\n1\n```\n", "and the program prints\n"),
        ("```python\nx = 1\n```\n```text varies\n1\n```\n", "and the program prints\n"),
        ("```python\nx = 1\n", "never closed"),
        ("```py\nx = 1\n```\n", "needs a comment `excerpt FILE NAME`"),
        (
            "<!-- excerpt tinyvae/kernels/clock.py nothing -->\n```py\nx = 1\n```\n",
            "there is no nothing in tinyvae/kernels/clock.py",
        ),
        (
            "<!-- excerpt tinyvae/kernels/clock.py Clock.get -->\n```py\nx = 1\n```\n",
            "Clock.get is no longer what stands",
        ),
    ],
)
def test_a_difference_is_said(tmp_path, text, says):
    with pytest.raises(run.Disagreement, match=re.escape(says)):
        run.run_here(chapter(tmp_path, text), refresh=False)


def test_a_refresh_writes_what_is_printed_and_what_stands_in_the_package(tmp_path):
    text = (
        "```python\nprint('a')\nprint(7)\n```\n```text\nold\n```\nand\n"
        "<!-- excerpt tinyvae/kernels/ops/likelihood.py scale_rows code -->\n```py\nold\n```\n"
    )
    path = chapter(tmp_path, text)
    run.run_here(path, refresh=True)
    assert "```text\na\n7\n```" in path.read_text()
    assert "def scale_rows(row_weight, grad):\n    grad *= row_weight[:, None]\n```" in path.read_text()
    assert run.run_here(path, refresh=False) == 1


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_excerpts_are_what_stands_in_the_package(path):
    run.excerpts(path, refresh=False)


def test_a_stale_excerpt_is_noticed_and_written_anew(tmp_path):
    path = chapter(
        tmp_path, "<!-- excerpt tinyvae/kernels/ops/likelihood.py scale_rows code -->\n```py\nold\n```\nend\n"
    )
    with pytest.raises(run.Disagreement, match="line 3: scale_rows is no longer what stands in the package"):
        run.excerpts(path, refresh=False)
    assert run.excerpts(path, refresh=True) == 1
    assert run.excerpts(path, refresh=False) == 1
    assert path.read_text().endswith("```\nend\n")


def test_an_error_names_the_chapters_line(tmp_path):
    path = chapter(tmp_path, "text\n\n```python\nx = 1\nx.nothing\n```\n")
    with pytest.raises(run.Disagreement, match=r"01_test\.md\", line 5"):
        run.run_chapter(path, refresh=False, keep=False)


def test_pictures_must_be_drawn_by_the_chapter(tmp_path):
    path = chapter(tmp_path, "![a](figures/01_a.png)\n\n```python\nx = 1\n```\n")
    with pytest.raises(run.Disagreement, match=r"pictures drawn \[\], pictures shown \['01_a.png'\]"):
        run.run_chapter(path, refresh=False, keep=False)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_are_of_one_form(path):
    """A title, short blocks, pictures that are there; every file under figures/ belongs to a chapter."""
    text = path.read_text("utf-8")
    assert re.match(rf"# {int(path.name[:2])}\. ", text)
    for block in run.blocks_of(text):
        assert len(block.lines) <= LONGEST or block.language in ("text", "py"), f"line {block.first}: a long block"
    for name in run.PICTURE.findall(text):
        assert name.startswith(path.name[:2]), f"{name} is named after another chapter"
        assert (ROOT / "tutorials" / "figures" / name).exists()


def test_every_link_leads_somewhere():
    for path in [*CHAPTERS, ROOT / "tutorials" / "README.md"]:
        prose = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
