"""Wrong input: one line that says what is wrong, the exit code of its kind, and a store that is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

import embstore
from embstore import Schema, TableSpec
from tests.cli_running import error_of, files_of, make_store, run

WRONG: list[tuple[str, int, str]] = [
    # refs
    ("log {store} nope", 3, "ref 'nope': no branch, tag or version is called so"),
    ("show {store} main~9", 3, "ref 'main~9': there are only 4 versions before it"),
    ("show {store} main@1999-01-01", 3, "no version is that old"),
    ("show {store} main@yesterday", 2, "date 'yesterday'"),
    ("diff {store} nope", 3, "ref 'nope'"),
    ("diff {store} main nope", 3, "ref 'nope'"),
    ("revert {store} nope", 3, "ref 'nope'"),
    ("revert {store} main~1 --branch nope", 3, "branch 'nope': there are exp, main; the verb branch makes one"),
    ("merge {store} nope", 3, "ref 'nope': no branch, tag or version is called so"),
    ("merge {store} exp~9", 3, "ref 'exp~9': there are only 2 versions before it"),
    ("merge {store} exp --into nope", 3, "branch 'nope': there are exp, main; the verb branch makes one"),
    ("merge {store} exp --into v1", 3, "branch 'v1': there are exp, main; the verb branch makes one"),
    ("merge {store} main", 2, "branch 'main' into itself: name another SOURCE, or another branch with --into"),
    ("merge {store} exp --into exp", 2, "branch 'exp' into itself"),
    (
        "merge {store} exp --on-conflict nope",
        2,
        "--on-conflict 'nope': give fail, ours, theirs or mean, or one for each, as in rows=",
    ),
    ("merge {store} exp --on-conflict cols=ours", 2, "--on-conflict 'cols=ours': give"),
    ("merge {store} exp --on-conflict rows=", 2, "--on-conflict 'rows=': give"),
    ("merge {store} exp --on-conflict rows=ours,mean", 2, "--on-conflict 'mean': give name=value"),
    ("merge {new} exp", 3, "new: nothing is there"),
    ("compact {store} --branch v1", 3, "branch 'v1': there are exp, main"),
    ("train {store} {pairs} -m x --branch nope", 3, "ref 'nope'"),
    ("train {store} {pairs} -m x --branch v1", 3, "branch 'v1'"),
    ("export {store} {new} --ref nope", 3, "ref 'nope'"),
    ("verify {store} nope", 3, "ref 'nope'"),
    # ids and what has them
    ("get {store} user 99", 3, "user id 99: 1 unknown (never appended, or removed); the verb ids lists what is there"),
    ("get {store} user 3", 3, "user id 3: 1 unknown"),
    ("get {store} user x", 2, "user id 'x': ids of 'user' are int64; give a plain whole number"),
    ("get {store} user 07", 2, "user id '07'"),
    ("get {store} user 9223372036854775808", 2, "user id '9223372036854775808'"),
    ("get {store} item zzz", 3, "item id 'zzz': 1 unknown"),
    ("get {store} shop 1", 3, "entity 'shop': the store has"),
    ("get {store} user 1 --table popularity", 3, "table 'popularity': it is of 'item'; tables of 'user' are taste"),
    ("get {store} user 1 --table nope", 3, "table 'nope'"),
    ("ids {store} shop", 3, "entity 'shop'"),
    ("blame {store} user 99", 3, "user id 99"),
    ("blame {store} user x", 2, "user id 'x'"),
    ("recommend {store} 1 99", 3, "the verb ids lists what is there, and --unknown popular or mean ranks for others too"),
    ("remove {store} user 1 99 -m x", 3, "user id 99"),
    ("remove {store} user 1 x -m x", 2, "user id 'x'"),
    # stores
    ("log {new}", 3, "new: nothing is there"),
    ("log {folder}", 3, "folder: this is no embstore store"),
    ("log {pairs}", 3, "pairs.csv: this is no embstore store"),
    ("log gopher://store", 2, "store 'gopher://store': give a path"),
    ("init {store}", 5, "store: something is there already"),
    ("init {folder}", 5, "folder: something is there already"),
    ("export {store} {folder}", 5, "folder: something is there already"),
    # branches and tags
    ("tag {store} v1", 5, "tag 'v1': exists"),
    ("tag {store} exp", 5, "branch 'exp': exists"),
    ("tag {store} spent", 5, "tag 'spent': the name belonged to a deleted tag and stays spent"),
    ("tag {store} a/b", 2, "tag name 'a/b'"),
    ("tag {store} nope --delete", 3, "tag 'nope': there is v1"),
    ("branch {store} exp", 5, "branch 'exp': exists"),
    ("branch {store} v1", 5, "tag 'v1': exists"),
    ("branch {store} .x", 2, "branch name '.x'"),
    ("branch {store} b --at nope", 3, "ref 'nope'"),
    ("branch {store} main --delete", 5, "branch 'main': it stays; move it with --at REF --move"),
    ("branch {store} nope --move --at v1", 3, "branch 'nope': there is exp, main"),
    ("branch {store} v1 --move", 3, "branch 'v1': there is exp, main"),
    ("branch {store} nope --delete", 3, "branch 'nope': there is exp, main"),
    # files
    ("train {store} {new} -m x", 2, "new: the ending tells the format"),
    ("train {store} {new}.csv -m x", 2, "new.csv: no such file"),
    ("train {store} {empty}.csv -m x", 2, "empty.csv: the file is empty"),
    ("train {store} {pairs} -m x --validation {new}.csv", 2, "new.csv: no such file"),
    ("train {store} {pairs} -m x --columns item=sku", 2, "column 'sku' for item is there 0 times"),
    ("train {store} {pairs} -m x --columns shop=user", 2, "columns 'shop'='user': the left side is one of user, item"),
    ("train {store} {pairs} -m x --columns user", 2, "--columns 'user': give name=value"),
    ("train {store} {pairs} -m x --columns user=user,user=item", 2, "user is there twice"),
    (
        "train {store} {texts} -m x",
        2,
        "user id 'ann' at position 0: no plain whole number within int64 (7, not 07), as the store's",
    ),
    ("fold-in {store} {new}.csv -m x", 2, "new.csv: no such file"),
    ("evaluate {store} {new}.csv", 2, "new.csv: no such file"),
    ("evaluate {store} {pairs} --given {new}.csv", 2, "new.csv: no such file"),
    ("evaluate {store} {pairs} --metrics best", 2, "metric 'best'"),
    ("evaluate {store} {pairs} --metrics recall@5,recall@5", 2, "the name is there twice; name it once"),
    ("append {store} user {new} -m x", 2, "new: no such file"),
    ("append {store} user {new}.csv -m x", 2, "new.csv: no such file"),
    ("append {store} user {empty} -m x", 2, "empty: no ids"),
    ("append {store} user {empty}.csv -m x", 2, "empty.csv: the file is empty"),
    ("append {store} user {folder} -m x", 2, "folder: cannot be read"),
    ("append {store} user {latin} -m x", 2, "latin: not text in UTF-8"),
    ("append {store} user - -m x", 2, "standard input: no ids"),
    ("append {store} shop {pairs} -m x", 3, "entity 'shop'"),
    ("append {store} user {texts} -m x", 2, "user id 'ann'"),
    ("append {store} item {users} -m x", 2, "users.csv: column 'item' for item is there 0 times"),
    # trainers and settings
    ("train {store} {pairs} -m x --trainer nope", 2, "trainer 'nope': there is "),
    ("train {store} {pairs} -m x --set depth=3", 2, "setting depth of trainer 'popularity': it has decay"),
    ("train {store} {pairs} -m x --set decay=fast", 2, "setting decay='fast' of trainer 'popularity': give a number"),
    ("train {store} {pairs} -m x --set decay=nan", 2, "setting decay='nan'"),
    ("train {store} {pairs} -m x --set decay", 2, "--set 'decay': give name=value"),
    ("train {store} {pairs} -m x --set decay=1 --set decay=2", 2, "decay is there twice"),
    (
        "train {store} {pairs} -m x --on-conflict nope",
        2,
        "--on-conflict 'nope': give fail, ours, theirs or mean, or one for each,",
    ),
    ("train {store} {pairs} -m x --on-conflict rows=nope", 2, "--on-conflict 'rows=nope': give fail, ours"),
    ("train {store} {pairs} -m x --on-conflict rows=ours,rows=mean", 2, "rows is there twice; give it once"),
    ("fold-in {store} {pairs} -m x --on-conflict nope", 2, "--on-conflict 'nope': give fail"),
    ("fold-in {store} {pairs} -m x --run a/b", 2, "run name 'a/b'"),
    ("train {store} {pairs} -m x --patience 2", 2, "--patience 2 without --validation: give held-out pairs"),
    ("train {store} {pairs} -m x --run a/b", 2, "run name 'a/b'"),
    ("train {bare} {pairs} -m x", 2, "no version up to here records a trainer; name one with --trainer"),
    ("train {bare} {pairs} -m x --trainer popularity", 2, "None was asked for; take another trainer or other settings"),
    ("recommend {untrained} 1", 2, "no version up to here was trained; use the verb train first"),
    ("evaluate {bare} {pairs}", 2, "no version up to here was trained; use the verb train first"),
    ("fold-in {bare} {pairs} -m x", 2, "no version up to here records a trainer"),
    ("fold-in {new_one} {pairs} -m x --trainer popularity", 2, "to fold into; use the verb train first"),
    ("fold-in {bare} {pairs} -m x --trainer nope", 2, "trainer 'nope'"),
    ("init {new} --trainer nope", 2, "trainer 'nope'"),
    ("init {new} --set decay=1", 2, "--set decay=1: settings of which trainer?"),
    ("init {new} --trainer popularity --set depth=3", 2, "setting depth"),
    ("init {new} --entity user=float", 2, "id type 'float'"),
    ("init {new} --entity user", 2, "--entity 'user': give name=value"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return stores and files by the names that the wrong calls use."""
    folder = tmp_path_factory.mktemp("cli")
    store = make_store(folder / "store")
    store.tag("spent")
    store.delete_tag("spent")
    embstore.create(folder / "bare", schema=Schema((TableSpec("popularity", "item", 3),)), durability="none")
    embstore.create(folder / "new_one", durability="none")
    with embstore.create(folder / "untrained", durability="none").checkout() as work:
        work.add_entity("user")
        work.append("user", [1])
        work.commit("one user")
    (folder / "folder").mkdir()
    (folder / "folder" / "notes").write_text("mine\n")
    (folder / "pairs.csv").write_text("user,item\n1,a\n2,b\n")
    (folder / "texts.csv").write_text("user,item\nann,a\n")
    (folder / "users.csv").write_text("user\n1\n")
    for name in ("empty", "empty.csv"):
        (folder / name).touch()
    (folder / "latin").write_bytes(b"caf\xe9\n")
    names = ("store", "bare", "new_one", "untrained", "new", "folder", "empty", "latin")
    files = {name: f"{folder / name}.csv" for name in ("pairs", "texts", "users")}
    return {name: str(folder / name) for name in names} | files


@pytest.mark.parametrize(("call", "code", "message"), WRONG, ids=[call for call, _, _ in WRONG])
def test_wrong_input(places: dict[str, str], call: str, code: int, message: str) -> None:
    """The message names what is wrong, the code its kind; nothing is written anywhere."""
    folder = Path(places["store"]).parent
    before = files_of(folder)
    found_code, found = error_of(*(word.format(**places) for word in call.split()))
    assert found_code == code
    assert message in found
    assert files_of(folder) == before


def test_ambiguous_prefix() -> None:
    """Versions are made until the ids of two begin alike; these four characters are then refused."""
    store = embstore.create("memory://cli-ambiguous")
    work, starts = store.checkout(), set[str]()
    while (start := work.version.id[:4]) not in starts:
        starts.add(start)
        work.commit("one more", allow_empty=True)
    code, message = error_of("show", store.url, start)
    assert code == 2
    assert message.startswith(f"ref {start!r}: 2 versions begin so ({start}")


def test_damage(tmp_path: Path) -> None:
    """A version with a byte that was turned over is found, told and exits with 6."""
    store = embstore.create(tmp_path / "store", schema=Schema((TableSpec("taste", "user", 64),)), durability="none")
    with store.checkout() as work:
        work.append("user", range(300))
        work.commit("many")
    chunk = max((tmp_path / "store" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[1000] ^= 1
    chunk.write_bytes(data)
    done = run("verify", store.url, "--deep")
    assert (done.exit_code, done.stderr) == (
        6,
        f"error: {store.url}: 1 problems; go back to a version that is whole, or to a copy\n",
    )
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("result")] == ["damaged"]
    assert done.stdout.count("tables/taste/base/values") == 1
    code, message = error_of("get", store.url, "user", 3)
    assert code == 6
    assert "tables/taste/base/values" in message


def test_message_with_control_characters_stays_one_line(places: dict[str, str]) -> None:
    """What a caller gave cannot move the cursor or break the line of an error."""
    assert "\\x1b[2J" in error_of("show", places["store"], "a\x1b[2J\nb")[1]
