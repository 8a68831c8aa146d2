"""Runs the chapters as a reader would, block after block, each chapter in a fresh process, and says where text and
program no longer agree.

python tutorials/run.py [CHAPTER …]        run them: blocks, printed text, excerpts, figures; the last line is the total
python tutorials/run.py --refresh 04       write what is printed today, and the excerpts as they stand in the package
python tutorials/run.py --excerpts         write the excerpts anew, and run nothing
python tutorials/run.py --figures 04       keep the pictures that the chapter draws

In a chapter, every block that is marked `python` is run, in order, in one namespace. A block marked `text` behind it is
what it prints: words are compared as they are, numbers to 5 %; `text varies` is shown and not compared. A block marked
`py` stands under a comment `excerpt FILE NAME` and is the source of that function or class; `excerpt FILE NAME code` is
the same without its docstring. A picture is `figures/NAME.png`, and the chapter's own code writes it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FENCE = re.compile(r"^```(\S+)(.*)$")
EXCERPT = re.compile(r"^<!-- excerpt (\S+) (\S+)( code)? -->$")
PICTURE = re.compile(r"!\[[^\]]*\]\(figures/([^)]+)\)")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
TOLERANCE = 0.05
LIMIT = 180  # seconds for a chapter: far above what any should take


class Disagreement(Exception):
    """What the chapter says and what happened differ."""


@dataclass
class Block:
    """A fenced block: its language, the words behind it, the first line of its content (from 1), and its lines."""

    language: str
    words: str
    first: int
    lines: list[str]
    excerpt: re.Match[str] | None

    @property
    def text(self) -> str:
        """The content, as one string."""
        return "\n".join(self.lines)


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a chapter, in order."""
    found, lines, inside = [], text.split("\n"), None
    for number, line in enumerate(lines, 1):
        if inside is not None:
            if line == "```":
                found.append(inside)
                inside = None
            else:
                inside.lines.append(line)
        elif match := FENCE.match(line):
            before = lines[number - 2] if number > 1 else ""
            inside = Block(match[1], match[2].strip(), number + 1, [], EXCERPT.match(before))
    if inside is not None:
        raise Disagreement(f"line {inside.first - 1}: a block is never closed")
    return found


# ------------------------------------------------------------------------------------------------ excerpts


def source_of(file: str, name: str, code_only: bool) -> str:
    """The source of a function, class or method as it stands in the package, without its docstring where asked."""
    text = (ROOT / file).read_text("utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inner = [n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part]
        if not inner:
            raise Disagreement(f"there is no {name} in {file}")
        node = inner[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    lines = text.split("\n")
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    kept = list(range(first, node.end_lineno + 1))  # type: ignore[operator]
    if code_only and ast.get_docstring(node) is not None:
        doc = node.body[0]
        kept = [n for n in kept if not doc.lineno <= n <= doc.end_lineno]  # type: ignore[operator]
    return textwrap.dedent("\n".join(lines[n - 1] for n in kept))


def stale(block: Block) -> Disagreement:
    """What is wrong with an excerpt that has another source by now."""
    assert block.excerpt is not None
    return Disagreement(f"line {block.first}: {block.excerpt[2]} is no longer what stands in the package")


def excerpts(path: Path, refresh: bool) -> int:
    """Compares a chapter's excerpts with the package, or writes them anew, and runs nothing; returns how many."""
    lines = path.read_text("utf-8").split("\n")
    found = [block for block in blocks_of("\n".join(lines)) if block.excerpt is not None]
    for block in reversed(found):
        wanted = source_of(block.excerpt[1], block.excerpt[2], bool(block.excerpt[3]))  # type: ignore[index]
        if block.text != wanted:
            if not refresh:
                raise stale(block)
            lines[block.first - 1 : block.first - 1 + len(block.lines)] = wanted.split("\n")
    if refresh:
        path.write_text("\n".join(lines), "utf-8")
    return len(found)


# ------------------------------------------------------------------------------------------------ one chapter


def agree(said: str, printed: str) -> bool:
    """Whether the words are the same and the numbers nearly so."""
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True)
    values = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs]
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in values)


def run_here(path: Path, refresh: bool) -> int:
    """Runs a chapter's blocks in this process; returns how many. In a refresh the chapter is written anew."""
    text = path.read_text("utf-8")
    lines, blocks, changes = text.split("\n"), blocks_of(text), []
    namespace: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "py":
            if block.excerpt is None:
                raise Disagreement(
                    f"line {block.first}: a block marked py needs a comment `excerpt FILE NAME` above it"
                )
            wanted = source_of(block.excerpt[1], block.excerpt[2], bool(block.excerpt[3]))
            if block.text != wanted:
                if not refresh:
                    raise stale(block)
                changes.append((block, wanted))
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.first - 1) + block.text, str(path), "exec"), namespace)
        count += 1
        output = printed.getvalue().rstrip("\n")
        shown = after if after is not None and after.language == "text" else None
        if shown is None and output:
            raise Disagreement(f"line {block.first}: the block prints, and no text block shows what: {output[:200]}")
        if shown is None:
            continue
        varies = shown.words == "varies"
        if refresh and shown.text != output and not agree(shown.text, output):
            changes.append((shown, output))
        elif not (agree(shown.text, output) or (varies and output)):
            raise Disagreement(f"line {shown.first}: the chapter says\n{shown.text}\nand the program prints\n{output}")
    for block, wanted in sorted(changes, key=lambda change: -change[0].first):
        lines[block.first - 1 : block.first - 1 + len(block.lines)] = wanted.split("\n")
    if changes:
        path.write_text("\n".join(lines), "utf-8")
    return count


def run_chapter(path: Path, refresh: bool, keep: bool) -> str:
    """Runs a chapter in a fresh process in an empty folder, and looks at its pictures. Returns what to print."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "figures").mkdir()
        command = [sys.executable, __file__, "--here", str(path), *(["--refresh"] if refresh else [])]
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Disagreement(f"not done after {LIMIT} s") from None
        if done.returncode:
            raise Disagreement(done.stderr.strip() or done.stdout.strip())
        drawn = {p.name for p in Path(folder, "figures").glob("*.png")}
        shown = set(PICTURE.findall(path.read_text("utf-8")))
        if drawn != shown:
            raise Disagreement(f"pictures drawn {sorted(drawn)}, pictures shown {sorted(shown)}")
        if keep:
            for name in drawn:
                shutil.copy(Path(folder, "figures", name), HERE / "figures" / name)
        if missing := [name for name in shown if not (HERE / "figures" / name).exists()]:
            raise Disagreement(f"figures/{missing[0]} is not there: run with --figures")
    return f"{done.stdout.strip()} blocks, {len(drawn)} pictures, {time.perf_counter() - start:.1f} s"


def chapters(wanted: list[str]) -> list[Path]:
    """The chapters whose names begin with what is asked for; all of them where nothing is."""
    every = sorted(HERE.glob("[0-9][0-9]_*.md"))
    found = [p for p in every if not wanted or any(p.name.startswith(w) for w in wanted)]
    if not found:
        raise SystemExit(f"no chapter begins with {' or '.join(wanted)}; there are {', '.join(p.name for p in every)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the chapters and compares them with what happens.")
    parser.add_argument("chapter", nargs="*", help="number or name; all chapters where none is given")
    parser.add_argument("--refresh", action="store_true", help="write printed text and excerpts anew")
    parser.add_argument("--excerpts", action="store_true", help="write excerpts anew, and run nothing")
    parser.add_argument("--figures", action="store_true", help="keep the pictures")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        try:
            print(run_here(Path(options.here), options.refresh))
        except Disagreement as difference:
            print(difference, file=sys.stderr)
            return 1
        except Exception:
            traceback.print_exc()
            return 1
        return 0
    if options.excerpts:
        for path in chapters(options.chapter):
            print(f"{path.name}: {excerpts(path, refresh=True)} excerpts")
        return 0
    failed = passed = 0
    for path in chapters(options.chapter):
        try:
            print(f"{path.name}: {run_chapter(path, options.refresh, options.figures)}", flush=True)
            passed += 1
        except Disagreement as difference:
            print(f"{path.name}: FAILED\n{difference}", flush=True)
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
