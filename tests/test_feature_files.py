"""Files of features: what their cells become, and the command line that trains with them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embstore
from embstore import IdTypeError, InvalidInputError
from embstore.feature_files import read_features
from tests.cli_running import text_of

CSV = "user,age,zip,tag\n7,24,07030,a\n8,,,b\n"
ATOMIC = "item_id:token\tyear:float\tgenres:token_seq\n50\t1977\tAction Sci-Fi\n181\t\t\n"


def test_text_stays_as_it_is_written(tmp_path: Path) -> None:
    """Ids are whole numbers, categories text, numbers are those asked for, and an empty cell is no value."""
    file = tmp_path / "people.csv"
    file.write_text(CSV)
    frame = read_features(file, "user", numbers=["age"])
    assert (frame.index.name, frame.index.tolist()) == ("user", [7, 8])
    assert frame["age"].isna().tolist() == [False, True]
    assert (frame["age"].iloc[0], frame["zip"].iloc[0], frame["tag"].tolist()) == (24.0, "07030", ["a", "b"])
    assert frame["zip"].isna().tolist() == [False, True]


def test_atomic_files_say_what_is_a_list_and_a_number(tmp_path: Path) -> None:
    """RecBole's types: token_seq is split at spaces, float is a number."""
    file = tmp_path / "films.item"
    file.write_text(ATOMIC)
    frame = read_features(file, "item")
    assert frame.index.tolist() == [50, 181]
    assert (frame["year"].iloc[0], frame["year"].isna().tolist()) == (1977.0, [False, True])
    assert frame["genres"].tolist() == [["Action", "Sci-Fi"], None]


def test_types_that_are_asked_for(tmp_path: Path) -> None:
    """Ids and categories are of the types that a store has."""
    file = tmp_path / "people.csv"
    file.write_text("user,zip\n7,70\n8,80\n")
    frame = read_features(file, "user", id_types={"user": "str", "zip": "int64"})
    assert (frame.index.tolist(), frame["zip"].tolist()) == (["7", "8"], [70, 80])
    with pytest.raises(IdTypeError, match=r"tag id 'a'"):
        file.write_text(CSV)
        read_features(file, "user", id_types={"tag": "int64"})


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """Nothing is text that was none."""
    file = tmp_path / "people.parquet"
    pd.DataFrame({"age": [24.5, None], "user": [7, 8]}).to_parquet(file)
    frame = read_features(file, "user")
    assert (frame.index.name, frame.index.tolist(), frame["age"].iloc[0]) == ("user", [7, 8], 24.5)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("people.csv", "", "the file is empty"),
        ("people.csv", "person,age\n7,1\n", "column 'user' for user is there 0 times"),
        ("people.csv", "user,age\n7,old\n", "age 'old' at position 0: give a number"),
        ("people.txt", "user,age\n7,1\n", "the ending tells the format"),
        ("people.user", "user:token\tage:float\n7\t1\n", "column 'user_id' for user"),
        ("people.csv", "user,age,zip,age\n7,1,2,3\n", "people.csv: column 'age' is there 2 times; give each a name of its own"),
        ("people.csv", "user,,\n7,1,2\n", "column '' is there 2 times"),
        ("people.user", "user_id:token\tage:float\tage:token\n7\t1\t1\n", "column 'age' is there 2 times"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, reason: str) -> None:
    """Each has its one clear error."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=reason):
        read_features(file, "user", numbers=["age"])


def test_parquet_with_a_column_twice(tmp_path: Path) -> None:
    """None of both is taken for the other."""
    file, ages = tmp_path / "people.parquet", pa.array([24.5, 31.0])
    pq.write_table(pa.Table.from_arrays([pa.array([7, 8]), ages, ages], ["user", "age", "age"]), file)
    with pytest.raises(InvalidInputError, match="column 'age' is there 2 times; give each a name of its own"):
        read_features(file, "user")


def test_a_missing_file(tmp_path: Path) -> None:
    """There is nothing to read."""
    with pytest.raises(InvalidInputError, match="no such file"):
        read_features(tmp_path / "people.csv", "user")


def test_training_with_features_from_the_command_line(tmp_path: Path) -> None:
    """The trainer's columns are staged; an item that nobody has had yet has its row."""
    pytest.importorskip("torch")
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(8) for i in (u % 3, 3, 4)))
    (tmp_path / "films.item").write_text(ATOMIC)
    (tmp_path / "people.csv").write_text("user,age,tag\n0,24,x\n1,31,y\n")
    store = tmp_path / "store"
    settings = ("user_sparse=tag", "user_dense=age", "item_dense=year", "item_multi=genres:3", "epochs=1", "dim=4")
    text_of("init", store, "--trainer", "deepfm", *(word for setting in settings for word in ("--set", setting)))
    files = ("--user-features", tmp_path / "people.csv", "--item-features", tmp_path / "films.item")
    text_of("train", store, tmp_path / "pairs.csv", "-m", "first", *files)
    version = embstore.open(store).at()
    assert version.ids("tag").ids().tolist() == ["x", "y"]
    assert version.table("user.age").get([0, 1, 2]).tolist() == [24, 31, 0]
    assert version.table("item.year").get([50, 181]).tolist() == [1977, 0]
    assert version.table("item.genres").get([50, 181]).tolist() == [[0, 1, -1], [-1, -1, -1]]
