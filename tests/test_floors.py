"""The house keeps its floors: who may import whom, and what nobody may import."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# By the first part of the path inside embstore/: a folder stands on one floor.
_ROOMS = {
    0: "dtypes errors initializers names schema",
    1: "csr_files datetimes feature_files initial interactions lineage metrics normalize progress readers splits "
    "storage targets texts torchless",
    2: "columns consumed dense entity ids reaching staging tables",
    3: "changes conflicts",
    4: "growth layer staged version",
    5: "branching checkout collection committing compare diff expiry founding history maintenance merge merge_records "
    "merge_rows merge_schema parcels refs replay retaining rowless sides threeway verify worker workspace",
    6: "store",
    7: "binding bound dcp distributed doctor epochs extras features foldin formats optimizers owned ranking recommending "
    "registry report runs saved saving serving skewing tensors trainer training validation wire",
    8: "demo elsewhere testing",
    9: "__init__",
    10: "cli",
    11: "__main__",
}
FLOORS = {room: floor for floor, rooms in _ROOMS.items() for room in rooms.split()}
# Files of one floor that may import one of their own, never in a circle; the files of one folder always may.
NEIGHBOURS = (
    {"dtypes", "errors", "names", "initializers", "schema"},
    {"normalize", "datetimes", "interactions", "readers", "feature_files", "csr_files", "splits", "texts"},
    {"metrics", "targets"},
    {"entity", "ids", "staging", "columns", "tables", "consumed", "dense"},
    {"history", "workspace", "replay", "sides", "merge_schema", "merge_rows", "merge_records", "threeway", "rowless", "compare"},
    {"checkout", "committing", "compare", "diff", "history", "merge", "refs", "rowless", "threeway", "worker", "workspace"},
    {"founding", "maintenance"},
    {"branching", "refs"},
    {"refs", "verify", "expiry", "collection", "retaining"},
    {"binding", "bound", "extras", "optimizers", "owned", "tensors"},
    {"dcp", "distributed", "extras", "saved", "saving", "tensors", "wire"},
    {"epochs", "features", "formats"},
    {"trainer", "registry", "recommending", "features", "foldin", "epochs", "runs", "skewing", "training", "validation"},
    {"trainer", "ranking", "recommending"},
    {"elsewhere", "testing"},
)

TORCH_ROOMS = {"binding", "bound", "extras", "optimizers", "owned", "tensors", "distributed", "dcp", "formats", "saving", "wire"}
LAZY_ANYWHERE = {"torch", "pandas", "scipy"}
LAZY_IN_STORAGE = LAZY_ANYWHERE | {"icechunk", "zarr", "filelock", "google_crc32c", "numcodecs"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}
# A program of its own, never imported: it reads the pickles of other systems as plain data, see its tests.
UNPICKLER = "embstore/formats/unpickling.py"
UNSAFE_CALLS = {"eval", "exec", "__import__"}
UNSAFE_KEYWORDS = {("allow_pickle", True), ("weights_only", False)}


@dataclass(frozen=True)
class Import:
    """One imported module, and the name taken out of it (None for a plain import)."""

    module: str
    name: str | None
    in_function: bool
    line: int

    @property
    def root(self) -> str:
        """The outermost package."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One file of ours: its path from the root of the project, and what is in it."""

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.path)

    @functools.cached_property
    def imports(self) -> list[Import]:
        """Every import of the file, those for type checkers too."""
        return list(_imports(self.tree, in_function=False))

    @property
    def module(self) -> str:
        """Its name in an import."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        """The first part of its path."""
        return self.path.partition("/")[0]

    @property
    def room(self) -> str:
        """The second part of its path: a file's stem, or a folder."""
        return self.path.removesuffix(".py").split("/")[1]


def _imports(node: ast.AST, *, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, None, in_function, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(child.module or "", alias.name, in_function, child.lineno) for alias in child.names)
        else:
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from _imports(child, in_function=in_function or is_function)


def _sources(*packages: str) -> list[Source]:
    paths = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


SOURCES = _sources("embstore", "trainers", "tests")
ROOMS = FLOORS.keys() - {"__init__", "__main__"}


def _rooms_imported(source: Source) -> Iterator[tuple[str, int]]:
    """Yield each room of embstore that ``source`` imports, with the line; the public names are in ``__init__``."""
    for found in source.imports:
        package, _, inside = found.module.partition(".")
        if package == "embstore":
            top = found.name if found.name in ROOMS else "__init__"
            yield inside.partition(".")[0] or str(top), found.line


def _may_import(room: str, other: str) -> bool:
    together = room == other or any({room, other} <= group for group in NEIGHBOURS)
    return together or FLOORS.get(other, len(FLOORS)) < FLOORS.get(room, 0)


def imports_go_down(source: Source) -> list[int]:
    """A file of embstore imports from lower floors, from its own folder, or from a named neighbour."""
    if source.package != "embstore":
        return []
    return [line for room, line in _rooms_imported(source) if not _may_import(source.room, room)]


def only_storage_knows_the_engine(source: Source) -> list[int]:
    """Zarr and icechunk are imported in embstore/storage and nowhere else in the packages."""
    if source.package == "tests" or source.path.startswith("embstore/storage/"):
        return []
    return [i.line for i in source.imports if i.root in {"zarr", "icechunk"}]


def torch_stays_in_its_rooms(source: Source) -> list[int]:
    """Of embstore, only what speaks to torch imports it."""
    if source.package != "embstore" or source.room in TORCH_ROOMS:
        return []
    return [i.line for i in source.imports if i.root == "torch"]


def embstore_stands_alone(source: Source) -> list[int]:
    """Trainers come in by entry points, so embstore imports none; neither package needs tests or tools."""
    above = {"embstore": {"trainers", "tests", "tools"}, "trainers": {"tests", "tools"}}
    return [i.line for i in source.imports if i.root in above.get(source.package, set())]


def trainers_use_public_names(source: Source) -> list[int]:
    """A trainer sees of embstore what any stranger sees: the names at the top."""
    if source.package != "trainers":
        return []
    inner = [line for room, line in _rooms_imported(source) if room != "__init__"]
    private = [i.line for i in source.imports if i.root == "embstore" and (i.name or "").startswith("_")]
    return inner + private + [node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.Attribute) and _is_room(node)]


def _is_room(node: ast.Attribute) -> bool:
    """Whether this is ``embstore.<room>`` spelled as an attribute."""
    return isinstance(node.value, ast.Name) and node.value.id == "embstore" and node.attr in ROOMS


def imports_are_at_the_top(source: Source) -> list[int]:
    """Only what is heavy, and what a CLI verb needs, is imported inside a function."""
    if source.package == "tests" or source.path.startswith("embstore/cli/"):
        return []
    lazy = LAZY_IN_STORAGE if source.path.startswith("embstore/storage/") else LAZY_ANYWHERE
    return [i.line for i in source.imports if i.in_function and i.root not in lazy]


def nothing_stored_is_run(source: Source) -> list[int]:
    """No pickle and no eval in the packages: reading a store cannot run code. One program reads pickles; nobody imports it."""
    if source.package == "tests":
        return []
    unpickler = Source(UNPICKLER, "").module
    modules = [i.line for i in source.imports if i.root in UNSAFE_MODULES and source.path != UNPICKLER]
    modules += [i.line for i in source.imports if unpickler in (i.module, f"{i.module}.{i.name}")]
    return modules + [
        node.lineno for node in ast.walk(source.tree) if isinstance(node, (ast.keyword, ast.Call)) and _is_unsafe(node)
    ]


def _is_unsafe(node: ast.keyword | ast.Call) -> bool:
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and (node.arg, node.value.value) in UNSAFE_KEYWORDS
    return isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS


def only_with_torch_needs_torch(source: Source) -> list[int]:
    """Tests outside tests/with_torch/ and tests/adapters/ import neither torch nor a trainer that imports it."""
    if source.package != "tests" or source.room in ("with_torch", "adapters"):
        return []
    return [i.line for i in source.imports if {i.root, i.module, f"{i.module}.{i.name}"} & _torch_modules()]


@functools.cache
def _torch_modules() -> set[str]:
    trainers = [s for s in SOURCES if s.package == "trainers" and any(i.root == "torch" for i in s.imports)]
    return {"torch"} | {s.module for s in trainers}


Rule = Callable[[Source], list[int]]
BROKEN: list[tuple[Rule, str, str]] = [
    (imports_go_down, "embstore/ids.py", "from embstore.store import open"),
    (imports_go_down, "embstore/initial.py", "from embstore.metrics import recall"),
    (imports_go_down, "embstore/ids.py", "from embstore import checkout"),
    (imports_go_down, "embstore/ids.py", "import embstore"),
    (imports_go_down, "embstore/storage/repo.py", "from embstore.ids import IdMap"),
    (only_storage_knows_the_engine, "embstore/ids.py", "import zarr.abc"),
    (only_storage_knows_the_engine, "trainers/bpr.py", "from icechunk import Repository"),
    (torch_stays_in_its_rooms, "embstore/training.py", "def f():\n    import torch"),
    (embstore_stands_alone, "embstore/training.py", "from trainers import bpr"),
    (embstore_stands_alone, "trainers/bpr.py", "import tools.movielens"),
    (trainers_use_public_names, "trainers/bpr.py", "from embstore.tables import Table"),
    (trainers_use_public_names, "trainers/bpr.py", "from embstore import tables"),
    (trainers_use_public_names, "trainers/bpr.py", "from embstore import _private"),
    (trainers_use_public_names, "trainers/bpr.py", "import embstore\nembstore.storage.repo"),
    (imports_are_at_the_top, "embstore/ids.py", "class A:\n    def f(self):\n        if self:\n            import json"),
    (imports_are_at_the_top, "embstore/ids.py", "def f():\n    import filelock"),
    (nothing_stored_is_run, "embstore/dense.py", "import pickle"),
    (nothing_stored_is_run, "embstore/dense.py", "np.load(path, allow_pickle=True)"),
    (nothing_stored_is_run, "trainers/bpr.py", "torch.load(path, weights_only=False)"),
    (nothing_stored_is_run, "trainers/bpr.py", "eval('1')"),
    (nothing_stored_is_run, "embstore/formats/restricted.py", "from embstore.formats import unpickling"),
    (only_with_torch_needs_torch, "tests/test_binding.py", "from torch import nn"),
]
KEPT: list[tuple[Rule, str, str]] = [
    (imports_go_down, "embstore/schema.py", "from embstore.errors import EmbstoreError"),
    (imports_go_down, "embstore/storage/repo.py", "from embstore.storage.arrays import read"),
    (imports_go_down, "embstore/cli/log.py", "import embstore.store"),
    (only_storage_knows_the_engine, "embstore/storage/repo.py", "import icechunk, zarr"),
    (torch_stays_in_its_rooms, "embstore/formats/dcp.py", "import torch"),
    (trainers_use_public_names, "trainers/bpr.py", "import embstore\nfrom embstore import Batch\nembstore.bind(embstore.Rows)"),
    (imports_are_at_the_top, "embstore/ids.py", "def f():\n    import pandas as pd"),
    (imports_are_at_the_top, "embstore/cli/log.py", "def f():\n    from embstore.store import open"),
    (nothing_stored_is_run, UNPICKLER, "import pickle"),
    (nothing_stored_is_run, "trainers/bpr.py", "model.eval()\ntorch.load(path, weights_only=True)"),
    (only_with_torch_needs_torch, "tests/with_torch/test_binding.py", "import torch"),
]
RULES = sorted({rule for rule, _, _ in BROKEN}, key=lambda rule: rule.__name__)


def test_every_file_has_a_floor() -> None:
    """A new file or folder of embstore is given its floor at the top of this module."""
    assert sorted({s.room for s in SOURCES if s.package == "embstore"} - FLOORS.keys()) == []


def test_no_circles() -> None:
    """No file imports, by whatever way round, itself."""
    modules = {s.module for s in SOURCES}
    graph = {s.module: {_imported(i, modules) for i in s.imports} & modules for s in SOURCES if s.package != "tests"}
    assert set(TopologicalSorter(graph).static_order()) <= modules


def _imported(found: Import, modules: set[str]) -> str:
    inner = f"{found.module}.{found.name}"
    return inner if inner in modules else found.module


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_is_kept(rule: Rule) -> None:
    """Every file keeps the rule; what is listed breaks it."""
    assert [f"{source.path}:{line}" for source in SOURCES for line in rule(source)] == []


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_rule_sees_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    """The rule names the last line of the example, which breaks it."""
    assert rule(Source(path, text)) == [len(text.splitlines())]


@pytest.mark.parametrize(("rule", "path", "text"), KEPT)
def test_rule_lets_pass_what_keeps_it(rule: Rule, path: str, text: str) -> None:
    """The rule has nothing to say about the example."""
    assert rule(Source(path, text)) == []
