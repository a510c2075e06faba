"""Where a store may be made and opened, and what else may be there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import pytest
import zarr

import embstore
from embstore import Schema
from embstore.errors import EmbstoreError, InvalidInputError, NotAStoreError, StoreExistsError, StoreNotFoundError

SOME = Schema(entities={"user": "str"})


def _nothing(place: Path) -> None:
    assert not place.exists()


def _empty_folder(place: Path) -> None:
    place.mkdir()


def _a_file(place: Path) -> None:
    place.write_text("a file")


def _a_folder_with_files(place: Path) -> None:
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "notes.txt").write_text("notes")


def _a_folder_with_refs(place: Path) -> None:
    (place / "refs" / "heads").mkdir(parents=True)
    (place / "HEAD").write_text("ref: refs/heads/main")


def _a_zarr_folder(place: Path) -> None:
    zarr.create_group(place, attributes={"format": 1})


def _repository(place: Path) -> icechunk.Repository:
    options = {"spec_version": 1} if int(icechunk.__version__.split(".")[0]) > 1 else {}
    return icechunk.Repository.create(icechunk.local_filesystem_storage(str(place)), **options)


def _another_repository(place: Path) -> None:
    session = _repository(place).writable_session("main")
    zarr.create_group(session.store, attributes={"title": "weather"})
    session.commit("weather")


def _a_newer_store(place: Path) -> None:
    embstore.create(place, schema=SOME)
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(place))).writable_session("main")
    zarr.open_group(session.store, mode="r+").attrs["format"] = 2
    session.commit("newer")


def _a_store(place: Path) -> None:
    embstore.create(place, schema=SOME)


def _listing(place: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_size) for p in place.parent.rglob("*") if p.is_file() and p.name != "embstore.lock")


OPENING: list[tuple[Callable[[Path], None], type[EmbstoreError] | None, str]] = [
    (_nothing, StoreNotFoundError, "create"),
    (_empty_folder, StoreNotFoundError, "create"),
    (_a_file, NotAStoreError, "no embstore store"),
    (_a_folder_with_files, NotAStoreError, "no embstore store"),
    (_a_folder_with_refs, NotAStoreError, "no embstore store"),
    (_a_zarr_folder, NotAStoreError, "no embstore store"),
    (_another_repository, NotAStoreError, "no embstore store"),
    (_a_newer_store, NotAStoreError, "format 2"),
    (_a_store, None, ""),
]


@pytest.mark.parametrize(("prepare", "error", "says"), OPENING, ids=lambda v: getattr(v, "__name__", None))
def test_opening(tmp_path: Path, prepare: Callable[[Path], None], error: type[EmbstoreError] | None, says: str) -> None:
    """Only a store can be opened; anything else is named for what it is, and left as it is."""
    place = tmp_path / "here"
    prepare(place)
    before = _listing(place)
    if error is None:
        assert embstore.open(place).at().entities == {"user": 0}
    else:
        with pytest.raises(EmbstoreError, match=says) as caught:
            embstore.open(place)
        assert (type(caught.value), caught.value.exit_code) == (error, 3)
        assert str(place) in str(caught.value)
    assert _listing(place) == before


CREATING: list[tuple[Callable[[Path], None], bool]] = [
    (_nothing, True),
    (_empty_folder, True),
    (_a_file, False),
    (_a_folder_with_files, False),
    (_a_folder_with_refs, False),
    (_a_zarr_folder, False),
    (_another_repository, False),
    (_a_newer_store, False),
    (_a_store, False),
]


@pytest.mark.parametrize(("prepare", "free"), CREATING, ids=lambda v: getattr(v, "__name__", None))
def test_creating(tmp_path: Path, prepare: Callable[[Path], None], free: bool) -> None:
    """A store is made where nothing is; what is there stays as it is."""
    place = tmp_path / "here"
    prepare(place)
    before = _listing(place)
    if free:
        assert embstore.create(place, schema=SOME).at().entities == {"user": 0}
        return
    with pytest.raises(StoreExistsError) as caught:
        embstore.create(place, schema=SOME)
    assert (type(caught.value), caught.value.exit_code, str(place) in str(caught.value)) == (StoreExistsError, 5, True)
    assert _listing(place) == before


def test_a_store_whose_making_was_interrupted(tmp_path: Path) -> None:
    """An Icechunk repository without any version of ours is taken over; before that it cannot be opened."""
    _repository(tmp_path / "s")
    with pytest.raises(NotAStoreError):
        embstore.open(tmp_path / "s")
    assert embstore.create(tmp_path / "s", schema=SOME).at().message == "create the store"


WRONG_URLS: list[Any] = ["", "http://example.org/x", "s4://bucket/x", "memory://", "file://host/x", None, 5, b"/x", "://", []]


@pytest.mark.parametrize("url", WRONG_URLS, ids=repr)
def test_urls_that_are_none(url: Any) -> None:
    """Other schemes, other hosts and what is no text."""
    for act in (embstore.open, embstore.create):
        with pytest.raises(InvalidInputError) as caught:
            act(url)
        assert caught.value.exit_code == 2
        assert repr(url)[1:-1] in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3:/bucket/x", "S3:bucket/x", "gs:/b", "az:c", "memory:", "memory:/x", "file:relative", "file:/x"]
)
def test_urls_with_a_slash_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """They make no folder of that name; a path that says where it begins may be called so."""
    monkeypatch.chdir(tmp_path)
    for act in (embstore.open, embstore.create):
        with pytest.raises(InvalidInputError, match=f"store '{url}': two slashes come after {url.partition(':')[0]}:; give"):
            act(url)
    assert list(tmp_path.iterdir()) == []
    assert embstore.create(f"./{url}").url == str(tmp_path / url)


def test_urls_of_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a relative one, a Path, file:// with and without encoding: all the same store."""
    place = tmp_path / "a store é"
    made = embstore.create(place, schema=SOME)
    monkeypatch.chdir(tmp_path)
    urls: list[Any] = [
        place,
        str(place),
        "a store é",
        "./a store é",
        f"file://{place}",
        place.as_uri(),
        f"file://localhost{place}",
    ]
    for url in urls:
        assert (embstore.open(url).url, embstore.open(url).at()) == (str(place), made.at())
    with pytest.raises(StoreExistsError):
        embstore.create(place.as_uri())


def test_other_settings(tmp_path: Path, url: str) -> None:
    """Settings that mean nothing here are refused before anything is made."""
    for act in (embstore.create, embstore.open):
        with pytest.raises(InvalidInputError, match="key"):
            act(tmp_path / "s", storage_options={"key": "secret"})
    with pytest.raises(InvalidInputError, match="maybe"):
        embstore.create(tmp_path / "s", durability="maybe")  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()
    with pytest.raises(InvalidInputError, match="key"):
        embstore.create(url, storage_options={"key": "secret"})
    with pytest.raises(StoreNotFoundError):
        embstore.open(url)


def test_memory_lives_in_this_process(url: str) -> None:
    """Two handles of one name share it; another name is another store; it exists once."""
    store = embstore.create(url, schema=SOME)
    with store.checkout() as work:
        work.append("user", ["a"])
        work.commit("x")
    assert embstore.open(url).at() == store.at()
    with pytest.raises(StoreExistsError):
        embstore.create(url)
    with pytest.raises(StoreNotFoundError):
        embstore.open(f"{url}-other")


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """Where the folder is deleted under a handle every call says so, and none makes it again."""
    place = tmp_path / "s"
    store = embstore.create(place, schema=SOME)
    version, work = store.at(), store.checkout()
    work.append("user", ["a"])
    acts: list[Callable[[], object]] = [
        *(store.at, store.branches, store.checkout, store.compact, store.verify, lambda: list(store.log())),
        *(lambda: store.gc("0s"), lambda: store.expire("0s"), lambda: store.branch("b"), lambda: store.tag("t")),
        *(lambda: work.commit("x"), lambda: version.pin().__enter__(), lambda: store.export(tmp_path / "export")),
    ]
    shutil.rmtree(place)
    for act in acts:
        with pytest.raises(StoreNotFoundError, match="not there any more"):
            act()
    work.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_schema_is_stored(tmp_path: Path) -> None:
    """Tables, slots, initializers and types come back as they were given."""
    specs = (
        embstore.TableSpec(
            "t", "user", 4, slots=(embstore.SlotSpec("s", None, "int64", fill=-3),), init=embstore.Uniform(-1, 2), seed=-5
        ),
        embstore.TableSpec("tags", "item", 3, "int32", init=embstore.Constant(-1), rows_of="tag"),
    )
    embstore.create(tmp_path / "s", schema=Schema(specs, {"user": "str", "other": "int64"}))
    view = embstore.open(tmp_path / "s").at()
    assert (tuple(view.tables.values()), view.entities) == (specs, {"item": 0, "other": 0, "tag": 0, "user": 0})
    assert [view.ids(entity).id_type for entity in ("user", "other", "item")] == ["str", "int64", None]
