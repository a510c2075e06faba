"""Verbs that read: what they show people, and the document that they give programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

import embstore
from embstore import Store
from embstore.cli.output import size
from tests.cli_running import json_of, make_store, run, text_of


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a store is that no test here changes."""
    path = tmp_path_factory.mktemp("cli") / "store"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    """Return that store."""
    return embstore.open(path)


def words(text: str) -> list[list[str]]:
    """Return the words of every line that is not empty."""
    return [line.split() for line in text.splitlines() if line.strip()]


def stamp(time: datetime) -> list[str]:
    """Return a time as tables show it."""
    return [f"{time:%Y-%m-%d}", f"{time:%H:%M}"]


def test_log_is_newest_first(path: Path, store: Store) -> None:
    """A line for each version has its id, time, new and removed ids, bytes, refs and the first line of its message."""
    shown = [
        ["-1", "(main)", "forget", "3"],
        ["+1", "+1", "tuesday"],
        ["(exp,", "v1)", "tune"],
        ["+3", "+3", "monday"],
        ["create", "the", "store"],
    ]
    lines = words(text_of("log", path))
    assert lines[0] == ["version", "time", "(UTC)", "user", "item", "written", "message"]
    for line, version, said in zip(lines[1:], store.log(), shown, strict=True):
        written = size(version.lineage["bytes"]).split()
        n_counts = sum(word[0] in "+-" for word in said)
        assert line == [version.id[:8], *stamp(version.time), *said[:n_counts], *written, *said[n_counts:]]


def test_log_of_a_ref_and_a_number(path: Path, store: Store) -> None:
    """A ref says where to begin, -n how many."""
    assert [v["message"] for v in json_of("log", path, "exp~1")] == ["monday", "create the store"]
    assert [v["id"] for v in json_of("log", path, "-n", 2)] == [store.at().id, store.at("main~1").id]


def test_log_document(path: Path, store: Store) -> None:
    """The document of a version has all that is recorded of it."""
    tune = store.at("v1")
    assert json_of("log", path, "v1", "-n", 1) == [
        {
            "id": tune.id,
            "parents": [tune.parent],
            "time": tune.time.isoformat(),
            "message": "tune\n\nwith a second paragraph",
            "branches": ["exp"],
            "tags": ["v1"],
            "metadata": {"by": "ann"},
            "lineage": tune.lineage,
        }
    ]


def test_log_graph_has_a_star_for_each_version(path: Path) -> None:
    """A history without merges is one line of stars."""
    lines = words(text_of("log", path, "--graph"))
    assert [line[0] for line in lines] == ["graph", *"*****"]
    assert [v["id"] for v in json_of("log", path, "--graph")] == [v["id"] for v in json_of("log", path)]


def test_show_text(path: Path, store: Store) -> None:
    """A version is shown with its making, its entities and its tables; a message keeps its lines."""
    tune = store.at("v1")
    assert words(text_of("show", path, "v1")) == [
        ["version", tune.id, "(exp,", "v1)"],
        ["parent", tune.parent],
        ["time", f"{tune.time:%Y-%m-%d}", f"{tune.time:%H:%M:%S}", "UTC"],
        ["message", "tune"],
        ["with", "a", "second", "paragraph"],
        ["metadata", "by=ann"],
        ["written", str(tune.lineage["bytes"]), "B"],
        ["by", *(word for pair in tune.lineage["libraries"].items() for word in pair)],
        ["entity", "type", "ids", "rows", "in", "this", "version"],
        ["user", "int64", "3", "3"],
        ["item", "str", "3", "3"],
        ["table", "entity", "dim", "dtype", "rows", "new", "changed", "slots"],
        ["taste", "user", "7", "float32", "3", "0", "2", "exp_avg"],
        ["popularity", "item", "-", "float32", "3", "0", "0"],
        ["dense", "net.weight", "float64", "[1,", "2]"],
    ]


def test_show_tells_how_it_was_trained(path: Path) -> None:
    """Trainer, settings, data and metrics of the lineage are lines of their own."""
    lines = words(text_of("show", path, "main~1"))
    assert ["trainer", "popularity"] in lines
    assert ["settings", "decay=0.5"] in lines
    assert ["data", "pairs=3", "first=20", "last=22"] in lines
    assert ["consumed", "+3", "pairs"] in lines


def test_show_document(path: Path, store: Store) -> None:
    """The document has the version's record, and what it holds: ids and rows, tables with their specs, arrays."""
    found = json_of("show", path)
    assert found["entities"] == {
        "user": {"type": "int64", "ids": 3, "rows": 4},
        "item": {"type": "str", "ids": 4, "rows": 4},
    }
    assert found["tables"]["taste"] == {**store.at().tables["taste"].to_json(), "rows": 4}
    assert found["dense"] == {"net.weight": {"dtype": "float64", "shape": [1, 2]}}
    assert found["consumed"] == {"new": 0}
    assert (found["id"], found["message"], found["branches"]) == (store.at().id, "forget 3", ["main"])


def test_diff_text(path: Path, store: Store) -> None:
    """The text has ids, tables, what moved most, arrays, record, metadata and bytes."""
    base, target = store.at("main~3"), store.at()
    lines = words(text_of("diff", path, "main~3"))
    assert lines[:9] == [
        ["base", base.id[:8], *stamp(base.time), "monday"],
        ["target", target.id[:8], *stamp(target.time), "forget", "3"],
        ["entity", "appended", "removed", "ids"],
        ["item", "1", "0", "+d"],
        ["user", "1", "1", "+-4", "-3"],
        ["table", "rows", "changed", "drift", "mean", "drift", "max", "cosine", "mean", "cosine", "max"],
        ["popularity", "4", "2", "0.5", "0.5", "0", "0"],
        ["taste", "4", "2", *(f"{x:.3g}" for x in _taste_figures(store))],
        ["exp_avg", "1"],
    ]
    drifts = store.diff("main~3").tables["taste"].drift.tolist()
    assert lines[9:] == [
        ["moved", "most", "in", "popularity", "a", "(0.5),", "c", "(0.5)"],
        ["moved", "most", "in", "taste", "2", f"({max(drifts):.3g}),", "1", f"({min(drifts):.3g})"],
        ["dense", "added", "net.weight"],
        ["consumed", "4", "->", "6", "pairs"],
        lines[-1],
    ]
    assert lines[-1][0] == "bytes"


def _taste_figures(store: Store) -> list[float]:
    table = store.diff("main~3").tables["taste"]
    return [table.drift.mean(), table.drift.max(), table.cosine.mean(), table.cosine.max()]


def test_diff_document_is_that_of_the_library(path: Path, store: Store) -> None:
    """A program gets every id and figure, in either direction."""
    assert json_of("diff", path, "v1", "main~1") == store.diff("v1", "main~1").to_dict()
    assert json_of("diff", path, "main", "v1") == store.diff("main", "v1").to_dict()


def test_diff_of_many_ids_shows_the_first(tmp_path: Path) -> None:
    """Of many new ids five are shown; the number is that of all."""
    store = embstore.create(tmp_path / "store", schema=embstore.Schema(entities={"user": "int64"}), durability="none")
    with store.checkout() as work:
        work.append("user", range(1000, 3000))
        work.commit("many")
    assert ["user", "2,000", "0", "+1000", "+1001", "+1002", "+1003", "+1004", "…"] in words(text_of("diff", store.url, "main~1"))


def test_get_shows_the_first_numbers(path: Path) -> None:
    """Text has a few numbers of each vector and a sign that there are more."""
    assert text_of("get", path, "user", 1, 2, "--table", "taste") == (
        "taste  7 x float32\nid  0  1  2  3  4  …\n1   1  1  1  1  1  …\n2   2  2  2  2  2  …\n"
    )


def test_get_of_a_table_without_width(path: Path) -> None:
    """A table with one number a row shows that number."""
    assert text_of("get", path, "item", "a") == "popularity  float32\nid    0\na   1.5\n"


def test_get_document_is_complete(path: Path, store: Store) -> None:
    """A program gets all numbers, in the order of the ids; -- ends the options, so that an id may begin with a minus."""
    done = run("get", path, "user", "--ref", "main~1", "--json", "--", 3, -4)
    assert done.exit_code == 0
    vectors = store.at("main~1").table("taste").get([3, -4]).tolist()
    expected = {"version": store.at("main~1").id, "entity": "user", "ids": [3, -4], "tables": {"taste": vectors}}
    assert json.loads(done.stdout) == expected


def test_ids_are_one_a_line(path: Path) -> None:
    """Live ids come in the order of their rows, as text or as a document with their types."""
    assert text_of("ids", path, "user") == "1\n2\n-4\n"
    assert text_of("ids", path, "user", "--ref", "v1") == "1\n2\n3\n"
    assert json_of("ids", path, "user") == [1, 2, -4]
    assert json_of("ids", path, "item") == ["a", "b", "c", "d"]


def test_blame_names_the_versions_of_a_row(path: Path) -> None:
    """A row's versions are listed newest first; of one table, only those that changed it there."""
    assert [v["message"].split()[0] for v in json_of("blame", path, "user", 1)] == ["tune", "monday"]
    assert [v["message"] for v in json_of("blame", path, "item", "a", "--table", "popularity")] == ["tuesday", "monday"]
    assert [line[-1] for line in words(text_of("blame", path, "item", "d"))] == ["message", "tuesday"]


def test_verify_text_and_document(path: Path, store: Store) -> None:
    """A whole version is said to be whole, with what was looked at."""
    tip = store.at().id
    assert words(text_of("verify", path)) == [["check", "verify", tip], ["result", "ok"], ["entities", "2"], ["tables", "2"]]
    assert json_of("verify", path, "--deep") == store.verify().to_dict()


def test_recommend_ranks_by_the_newest_trainer(path: Path) -> None:
    """Items come best first, without those that a user has had, unless these are asked for."""
    ranked = [
        {"user": 1, "item": "d", "score": 1.0, "rank": 1},
        {"user": 1, "item": "c", "score": 0.5, "rank": 2},
        {"user": 2, "item": "c", "score": 0.5, "rank": 1},
    ]
    assert json_of("recommend", path, 1, 2) == ranked
    assert words(text_of("recommend", path, 1, 2)) == [
        ["user", "rank", "item", "score"],
        ["1", "1", "d", "1"],
        ["2", "c", "0.5"],
        ["2", "1", "c", "0.5"],
    ]
    assert json_of("recommend", path, 2, "--consumed", "-k", 1) == [{"user": 2, "item": "b", "score": 2.0, "rank": 1}]


def test_recommend_for_unknown_users(path: Path) -> None:
    """Unknown users get what most users have had, where that is asked for."""
    assert [row["item"] for row in json_of("recommend", path, 99, "-k", 2, "--unknown", "popular")] == ["b", "a"]


def test_evaluate(path: Path, tmp_path: Path) -> None:
    """Metrics are the library's, with the version that they are of; columns may have any names."""
    file = tmp_path / "targets.csv"
    file.write_text("who,what\n1,d\n2,c\n77,a\n", encoding="utf-8")
    arguments = ("evaluate", path, file, "--columns", "user=who,item=what", "--metrics", "recall@1,mrr@2")
    found = json_of(*arguments)
    assert found == {
        "version": embstore.open(path).at().id,
        "recall@1": 1.0,
        "mrr@2": 1.0,
        "users": 2,
        "dropped_users": 1,
        "dropped_targets": 0,
    }
    assert words(text_of(*arguments)) == [
        ["version", found["version"][:8]],
        ["recall@1", "1"],
        ["mrr@2", "1"],
        ["users", "2"],
        ["dropped", "users", "1"],
        ["dropped", "targets", "0"],
    ]


def test_evaluate_without_known_users_is_null(path: Path, tmp_path: Path) -> None:
    """Where there is nobody to measure, the document has null, since JSON has no NaN."""
    file = tmp_path / "targets.csv"
    file.write_text("user,item\n77,a\n", encoding="utf-8")
    assert json_of("evaluate", path, file, "--metrics", "hit@1")["hit@1"] is None


def test_trainers_and_their_settings() -> None:
    """Every installed trainer is listed with its defaults."""
    (popularity,) = [trainer for trainer in json_of("trainers") if trainer["name"] == "popularity"]
    assert popularity == {"name": "popularity", "from": "embstore 0.1.0", "settings": {"decay": 1.0}, "error": None}
    assert ["popularity", "embstore", "0.1.0", "decay=1.0"] in words(text_of("trainers"))
