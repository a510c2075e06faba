"""Manners that no linter holds: lengths, docstrings, errors that exist, no printing, no machine's own paths."""

from __future__ import annotations

import ast
import builtins
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embstore import errors

ROOT = Path(__file__).resolve().parents[1]
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def _files(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


PACKAGES = _files("embstore/**/*.py", "trainers/**/*.py")
PYTHON = [*PACKAGES, *_files("tests/**/*.py", "tools/**/*.py")]
TEXTS = [
    *PYTHON,
    *_files("*.md", "docs/**/*.md", "docs/**/*.toml", "tools/*", "pyproject.toml", "Makefile", ".ci/*", ".gitignore"),
]


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _problems(check: Callable[[ast.Module], Iterator[tuple[int, str]]], paths: list[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}: {text}" for path in paths for line, text in check(_tree(path))]


def too_long(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the functions above the limit, decorators not counted."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if n_lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {n_lines} lines"


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the module, and its public classes, methods and functions, where they lack a docstring."""
    if tree.body and not ast.get_docstring(tree):
        yield 1, "module without docstring"
    for node in _public(tree):
        if not ast.get_docstring(node):
            yield node.lineno, f"{node.name} without docstring"


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not _repeats(node):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _repeats(node: Definition) -> bool:
    """Whether the docstring stands elsewhere: on the implementation of an overload, on the getter of a setter."""
    return any(ast.unparse(d).rpartition(".")[2] in {"overload", "setter", "deleter", "override"} for d in node.decorator_list)


def unknown_raises(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names in ``Raises`` sections that are no errors of ours and none of Python's."""
    for node in ast.walk(tree):
        if isinstance(node, Definition | ast.Module):
            for name in _raises(ast.get_docstring(node) or ""):
                if not (hasattr(errors, name) or hasattr(builtins, name)):
                    yield getattr(node, "lineno", 1), f"Raises {name}, which is neither in embstore.errors nor built in"


def _raises(docstring: str) -> Iterator[str]:
    """Yield each name of a numpydoc ``Raises`` section: what is not indented, up to the next section."""
    lines = docstring.splitlines()
    for number, line in enumerate(lines):
        if line == "Raises" and lines[number + 1 : number + 2] == ["------"]:
            for entry, following in zip(lines[number + 2 :], [*lines[number + 3 :], ""], strict=True):
                if following and set(following) == {"-"}:
                    return
                if entry and not entry.startswith(" "):
                    yield from re.split(r",\s*|\s+or\s+", entry)


def prints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the calls of print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "print"


# The top folders of somebody's machine, where a text begins with one; a URL or a longer path may hold the same words.
_MACHINE_PATH = re.compile(r"(?<![\w.~*}/-])(?:/(?:root|home|Users|work|tmp|opt|mnt|srv)/|[A-Z]:\\Users\\)\w")


def machine_paths(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold an absolute path of one machine."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _MACHINE_PATH.search(line) or str(ROOT) in line:
            yield number, line.strip()


def test_modules_fit_on_a_few_screens() -> None:
    """No module is longer than the limit."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    assert {path: n_lines for path, n_lines in lengths.items() if n_lines > MAX_MODULE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    """No function is longer than the limit."""
    assert _problems(too_long, PYTHON) == []


def test_public_things_have_docstrings() -> None:
    """Whatever a reader may call says what it does."""
    assert _problems(undocumented, PACKAGES) == []


def test_documented_errors_exist() -> None:
    """Every name in a Raises section can be caught."""
    assert _problems(unknown_raises, PACKAGES) == []


def test_libraries_do_not_print() -> None:
    """Only the command line writes to the terminal."""
    assert _problems(prints, [path for path in PACKAGES if "cli" not in path.relative_to(ROOT).parts]) == []


def test_no_path_of_one_machine() -> None:
    """Nothing in the project names a folder of the machine it was written on."""
    found = [(path, number, line) for path in TEXTS for number, line in machine_paths(path.read_text(encoding="utf-8"))]
    assert [f"{path.relative_to(ROOT)}:{number}: {line}" for path, number, line in found] == []


_RAISES = (
    'def f():\n    """F.\n\n    Raises\n    ------\n    {}\n        If so.\n\n    Examples\n    --------\n    Gone.\n    """'
)


@pytest.mark.parametrize(
    ("check", "text", "lines"),
    [
        (too_long, "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES, [1]),
        (too_long, "@decorated\ndef f():\n" + "    pass\n" * (MAX_FUNCTION_LINES - 1), []),
        (undocumented, "x = 1", [1]),
        (
            undocumented,
            '"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\n    def __len__(self): ...',
            [4],
        ),
        (undocumented, '"""M."""\n@overload\ndef f(x: int) -> int: ...\ndef f(x):\n    """F."""\n    def inner(): ...', []),
        (unknown_raises, _RAISES.format("GoneError"), [1]),
        (unknown_raises, _RAISES.format("UnknownIdError or OSError"), []),
        (unknown_raises, _RAISES.format("KeyError, GoneError"), [1]),
        (prints, "def f():\n    print(1)", [2]),
        (prints, "console.print(1)", []),
    ],
)
def test_check_sees(check: Callable[[ast.Module], Iterator[tuple[int, str]]], text: str, lines: list[int]) -> None:
    """Each check names the lines of the example that are wrong, and no others."""
    assert [line for line, _ in check(ast.parse(text))] == lines


@pytest.mark.parametrize("parts", [("home", "ann"), ("root", "x"), ("tmp", "store"), ("Users", "ann"), ("work", "x")])
def test_machine_path_is_seen(parts: tuple[str, str]) -> None:
    """A path from the top of a machine is found, the same words inside a URL or a relative path are not."""
    path = "/" + "/".join(parts)
    assert list(machine_paths(f"see {path}\n`{path}`")) == [(1, f"see {path}"), (2, f"`{path}`")]
    assert list(machine_paths(f"https://example.org{path} a{path} ./a{path} ~{path}")) == []
