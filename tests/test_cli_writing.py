"""Verbs that change a store: what they make is what the library would have made, and what they say of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import embstore
from embstore import InvalidInputError, Schema
from tests.cli_running import TUESDAY, error_of, files_of, json_of, make_store, run, text_of
from tests.examples import state_of
from trainers.popularity import Popularity


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store to be copied."""
    path = tmp_path_factory.mktemp("cli") / "store"
    make_store(path)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """Return a store that the test may change."""
    return Path(shutil.copytree(template, tmp_path / "store"))


def pairs_file(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    """Return a file with some text."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_init_makes_an_empty_store(tmp_path: Path) -> None:
    """Without more, a store has nothing but its first version."""
    made = json_of("init", tmp_path / "store")
    store = embstore.open(tmp_path / "store")
    assert (made["id"], made["branches"], made["parents"]) == (store.at().id, ["main"], [])
    assert store.at().schema == Schema()


def test_init_for_a_trainer(tmp_path: Path) -> None:
    """With a trainer, the store begins with its tables; --entity types what the trainer leaves open."""
    text = text_of("init", tmp_path / "store", "--trainer", "popularity", "--set", "decay=0.5", "--entity", "item=str")
    schema = embstore.open(tmp_path / "store").at().schema
    assert schema == Schema(Popularity(decay=0.5).schema().tables, {"item": "str"})
    assert text.split()[-4:] == ["tables", "popularity", "of", "item"]


def test_append_lines_of_standard_input(path: Path) -> None:
    """Ids come one a line, by any line ends, with or without a last one; empty lines are none."""
    made = json_of("append", path, "user", "-", "-m", "three more", input="7\r\n\n-9\n8")
    version = embstore.open(path).at()
    assert (made["id"], made["message"]) == (version.id, "three more")
    assert version.ids("user").ids().tolist() == [1, 2, -4, 7, -9, 8]
    assert version.ids("user").rows([7, -9, 8]).tolist() == [4, 5, 6]


def test_append_takes_text_as_it_is(path: Path) -> None:
    """Of an entity of text, ids are the lines, with their spaces and zeros; a byte order mark is no part of them."""
    text_of("append", path, "item", "-", "-m", "more", input=b"\xef\xbb\xbf007\n a \n\xc3\xa9\n")
    assert embstore.open(path).at().ids("item").ids().tolist()[4:] == ["007", " a ", "é"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.csv", "item,user\nx,7\ny,8\n"),
        ("ids.TSV", "user\titem\n7\tx\n8\ty\n"),
        ("ids.inter", "user_id:token\titem_id:token\n7\tx\n8\ty\n"),
        ("ids.txt", "7\n8\n"),
    ],
)
def test_append_from_a_file(path: Path, tmp_path: Path, name: str, text: str) -> None:
    """A table has its ids in the column that is called as the entity."""
    text_of("append", path, "user", pairs_file(tmp_path, text, name), "-m", "two more")
    assert embstore.open(path).at().ids("user").ids().tolist() == [1, 2, -4, 7, 8]


def test_append_from_parquet(path: Path, tmp_path: Path) -> None:
    """Parquet has types of its own, which have to be those of the entity."""
    pd.DataFrame({"user": [7, 8], "item": ["x", "y"]}).to_parquet(tmp_path / "ids.parquet")
    text_of("append", path, "user", tmp_path / "ids.parquet", "-m", "two more")
    assert embstore.open(path).at().ids("user").ids().tolist() == [1, 2, -4, 7, 8]
    pd.DataFrame({"user": ["7"]}).to_parquet(tmp_path / "ids.parquet")
    assert error_of("append", path, "user", tmp_path / "ids.parquet", "-m", "no")[0] == 2


@pytest.mark.parametrize(("lines", "ids"), [("7\n8\n", [7, 8]), ("7\nx\n", ["7", "x"]), ("07\n8\n", ["07", "8"])])
def test_first_ids_say_their_type(tmp_path: Path, lines: str, ids: list[object]) -> None:
    """An entity that nothing types is of numbers if all its first ids are plain ones."""
    embstore.create(tmp_path / "store", schema=Schema(entities={"shop": None}), durability="none")
    text_of("append", tmp_path / "store", "shop", "-", "-m", "first", input=lines)
    assert json_of("ids", tmp_path / "store", "shop") == ids


def test_append_of_known_ids_commits_nothing(path: Path) -> None:
    """What is there already is no change and no error."""
    before = embstore.open(path).at().id
    assert text_of("append", path, "user", "-", "-m", "again", input="2\n1\n").split()[1:] == [
        *[before[:8], "as", "it", "was:"],
        *["all", "ids", "are", "there", "already"],
    ]
    assert json_of("append", path, "user", "-", "-m", "again", input="2\n1\n")["id"] == before


def test_remove(path: Path) -> None:
    """Removed ids are gone, with a line that says so."""
    done = run("remove", path, "user", "-m", "two less", "--", 1, -4)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split() == ["ids", "-2", "user"]
    assert json_of("ids", path, "user") == [2]


def test_verbs_commit_to_a_branch(path: Path) -> None:
    """--branch leaves main as it is."""
    tip = embstore.open(path).at().id
    text_of("append", path, "user", "-", "-m", "there", "--branch", "exp", input="7\n")
    store = embstore.open(path)
    assert (store.at().id, store.at("exp").message, 7 in store.at("exp").ids("user")) == (tip, "there", True)


def test_branches_are_made_moved_and_deleted(path: Path) -> None:
    """A branch is made at a ref, moved only where that is asked for, and deleted."""
    store = embstore.open(path)
    assert text_of("branch", path, "daily", "--at", "v1").split() == ["branch", "daily", store.at("v1").id[:8]]
    assert error_of("branch", path, "daily")[0] == 5
    assert json_of("branch", path, "daily", "--move") == {"name": "daily", "version": store.at().id}
    assert [branch["name"] for branch in json_of("branch", path)] == ["daily", "exp", "main"]
    assert json_of("branch", path, "daily", "--delete") == {"name": "daily", "version": None}
    assert store.branches() == {"exp": store.at("v1").id, "main": store.at().id}


def test_tags_are_made_and_deleted(path: Path) -> None:
    """A tag is made at a ref, listed, and deleted; its name is then spent."""
    store = embstore.open(path)
    assert text_of("tag", path, "best", "--at", "main~1").split() == ["tag", "best", store.at("main~1").id[:8]]
    listed = [line.split()[:2] for line in text_of("tag", path).splitlines()]
    assert listed == [["name", "version"], ["best", store.at("main~1").id[:8]], ["v1", store.at("v1").id[:8]]]
    assert text_of("tag", path, "best", "--delete") == "tag  best  deleted\n"
    assert error_of("tag", path, "best") == (
        5,
        "tag 'best': the name belonged to a deleted tag and stays spent; take another, or a branch if it is to move",
    )


def test_no_tags_is_an_empty_list(tmp_path: Path) -> None:
    """Where there is nothing to list, nothing is written, or an empty document."""
    text_of("init", tmp_path / "store")
    assert (text_of("tag", tmp_path / "store"), json_of("tag", tmp_path / "store")) == ("", [])


def test_revert(path: Path) -> None:
    """The new version is equal to the earlier one by id."""
    made = json_of("revert", path, "v1")
    store = embstore.open(path)
    assert (made["id"], made["message"]) == (store.at().id, "revert to v1")
    assert store.diff("v1").is_empty
    assert json_of("revert", path, "main~1", "-m", "no, go on")["message"] == "no, go on"


def test_compact(path: Path) -> None:
    """Folding changes nothing; where there is nothing to fold, no version is made."""
    before = state_of(embstore.open(path).at())
    assert json_of("compact", path)["lineage"]["compacted"] is True
    assert state_of(embstore.open(path).at()) == before
    assert text_of("compact", path).endswith("as it was: nothing to fold\n")


def test_export(path: Path, tmp_path: Path) -> None:
    """One version becomes a store of its own, without slots if they are not wanted."""
    text = text_of("export", path, tmp_path / "copy", "--ref", "v1", "--no-slots")
    copy = embstore.open(tmp_path / "copy")
    assert text.split()[:4] == ["store", str(tmp_path / "copy"), "version", copy.at().id[:8]]
    assert copy.at().tables["taste"].slots == ()
    assert copy.at().ids("user").ids().tolist() == [1, 2, 3]
    assert (
        json_of("export", path, tmp_path / "whole", "--format", "store")["lineage"]["exported_from"]
        == embstore.open(path).at().id
    )
    file = pairs_file(tmp_path, "user,item\n2,a\n")
    made = json_of("train", tmp_path / "whole", file, "-m", "goes on")
    assert (made["lineage"]["trainer"], made["lineage"]["settings"]) == ("popularity", {"decay": 0.5})
    assert json_of("recommend", tmp_path / "copy", 1, "-k", 1) == json_of("recommend", path, 1, "-k", 1, "--ref", "v1")


def test_train_is_fit(template: Path, path: Path, tmp_path: Path) -> None:
    """A file of pairs gives the state that the library gives, with the trainer of the newest version."""
    file = pairs_file(tmp_path, "when,user,item\n22,2,a\n20,-4,b\n21,2,d\n")
    made = json_of("train", path, file, "-m", "again", "--columns", "time=when")
    expected = embstore.open(shutil.copytree(template, tmp_path / "other"))
    embstore.fit(expected, Popularity(decay=0.5), TUESDAY, message="again")
    assert state_of(embstore.open(path).at()) == state_of(expected.at())
    assert (made["lineage"]["settings"], made["lineage"]["metrics"]) == ({"decay": 0.5}, {"pairs": 3.0})


def test_train_says_what_came_of_it(path: Path, tmp_path: Path) -> None:
    """The text has the version, the new ids and what the trainer recorded."""
    text = text_of("train", path, pairs_file(tmp_path, "user,item\n5,a\n6,z\n"), "-m", "wednesday")
    tip = embstore.open(path).at()
    assert [line.split() for line in text.splitlines()[:6]] == [
        ["main", tip.id[:8], "wednesday"],
        ["ids", "+2", "user,", "+1", "item"],
        ["trainer", "popularity"],
        ["settings", "decay=0.5"],
        ["data", "pairs=2"],
        ["epochs", "1"],
    ]


def test_train_with_a_trainer_and_settings(path: Path, tmp_path: Path) -> None:
    """--set goes over the newest settings, and over the defaults of a trainer in a store that has none."""
    file = pairs_file(tmp_path, "user,item\n1,a\n")
    assert json_of("train", path, file, "-m", "x", "--set", "decay=0.25")["lineage"]["settings"] == {"decay": 0.25}
    assert json_of("train", path, file, "-m", "x", "--trainer", "popularity")["lineage"]["settings"] == {"decay": 0.25}
    text_of("init", tmp_path / "new")
    made = json_of("train", tmp_path / "new", file, "-m", "x", "--trainer", "popularity")
    assert made["lineage"]["settings"] == {"decay": 1.0}


def test_train_reads_ids_as_the_store_has_them(tmp_path: Path) -> None:
    """Where users are text, digits in a file are text too."""
    text_of("init", tmp_path / "store", "--entity", "user=str")
    file = pairs_file(tmp_path, "user,item\n7,1\n8,2\n")
    text_of("train", tmp_path / "store", file, "-m", "x", "--trainer", "popularity")
    assert (json_of("ids", tmp_path / "store", "user"), json_of("ids", tmp_path / "store", "item")) == (["7", "8"], [1, 2])


def test_train_of_a_run_happens_once(path: Path, tmp_path: Path) -> None:
    """The same run again gives the version that there is, so a job may be started twice."""
    file = pairs_file(tmp_path, "user,item\n1,a\n")
    arguments = ("train", path, file, "-m", "x", "--run", "2026-11-22")
    made = json_of(*arguments)["id"]
    assert text_of(*arguments) == f"main  {made[:8]}  as it was: the run 2026-11-22 is done already\n"
    assert json_of(*arguments)["id"] == made == embstore.open(path).at().id


def test_train_with_validation(path: Path, tmp_path: Path) -> None:
    """Held-out pairs are ranked, and what they say is in the lineage."""
    file, held_out = pairs_file(tmp_path, "user,item\n1,c\n"), pairs_file(tmp_path, "user,item\n1,d\n", "held-out.csv")
    made = json_of("train", path, file, "-m", "x", "--validation", held_out, "--patience", 1)
    assert made["lineage"]["metrics"]["recall@20"] == 1.0


def test_train_replaces_what_was_consumed(path: Path, tmp_path: Path) -> None:
    """--consumed replace drops the earlier record of these users."""
    text_of("train", path, pairs_file(tmp_path, "user,item\n1,d\n"), "-m", "x", "--consumed", "replace")
    assert embstore.open(path).at().consumed.of("user", [1])[0].tolist() == ["d"]


def test_fold_in(path: Path, tmp_path: Path) -> None:
    """New users come in, and the figures of what could not be used are said."""
    made = json_of("fold-in", path, pairs_file(tmp_path, "user,item\n70,a\n71,zzz\n"), "-m", "late ones")
    lineage = {key: made["lineage"][key] for key in ("entity", "new_ids", "ids_without_pairs", "dropped_pairs")}
    assert lineage == {"entity": "user", "new_ids": 2, "ids_without_pairs": 1, "dropped_pairs": 1}
    assert json_of("ids", path, "user") == [1, 2, -4, 70, 71]


@pytest.mark.parametrize("place", [["-q", "tag", "{}", "t"], ["tag", "{}", "t", "-q"], ["tag", "{}", "t", "--quiet"]])
def test_quiet_verbs_say_nothing(path: Path, place: list[str]) -> None:
    """-q, before the verb or after it, leaves out what was done."""
    assert text_of(*(part.format(path) for part in place)) == ""
    assert "t" in embstore.open(path).tags()


def test_quiet_leaves_what_was_asked_for(path: Path) -> None:
    """A verb that reads has no less to say when it is quiet."""
    assert text_of("-q", "ids", path, "user") == text_of("ids", path, "user")


@pytest.mark.parametrize("verb", ["append {} user -", "revert {} v1"])
def test_refused_message_changes_nothing(path: Path, verb: str) -> None:
    """A message has to say something."""
    before = files_of(path)
    code, message = error_of(*verb.format(path).split(), "-m", "  ", input="7\n")
    assert (code, message) == (InvalidInputError.exit_code, "message '  ': say in text what this version is")
    assert files_of(path) == before


def test_a_message_that_says_nothing_is_listed(path: Path) -> None:
    """Versions from when such messages were taken have a line like any other."""
    with embstore.open(path).checkout("exp") as work:
        work.append("user", [7])
        version = work.commit_here(" \n", {})
    assert text_of("log", path, "exp").splitlines()[1].startswith(version.id[:8])
    assert version.id[:8] in text_of("branch", path)
