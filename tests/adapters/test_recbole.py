"""RecBole 1.2.1 with versions for checkpoints: stopped, grown and reordered trainings go on by id."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Interactions, InvalidInputError, Rows, Store
from tests.adapters.recbole_runs import FIELDS, Run
from tests.examples import new_store, state_of

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RecBole write its logs into a folder that goes."""
    monkeypatch.chdir(tmp_path)


def pairs(n: int = 400, *, n_users: int = 30, n_items: int = 25) -> tuple[list[str], list[str]]:
    """Return users and items of distinct pairs, in some order."""
    random = np.random.default_rng(0)
    at = random.permutation(n_users * n_items)[:n]
    return [f"u{i}" for i in at // n_items], [f"i{i}" for i in at % n_items]


def kept(folder: Path, store: Store, users: list[str], items: list[str], **options: Any) -> Run:
    """Return a run that begins where the store is."""
    every = options.pop("every", 1)
    run = Run(folder, users, items, dim=8, **options)
    run.trainer.keep(store, run.data, FIELDS, name="bpr", every=every)
    return run


def test_checkpoints_are_versions(tmp_path: Path) -> None:
    """Without validation data every so many epochs and the last one are committed, with ids in place of RecBole's numbers."""
    store, (users, items) = new_store(), pairs()
    run = kept(tmp_path, store, users, items, epochs=5, every=2)
    run.fit()
    assert [version.metadata.get("epoch") for version in store.log()] == [5, 4, 2, None]
    assert store.at().metadata["train_loss"] > 0
    for parameter in FIELDS:
        found = run.vectors(parameter)
        np.testing.assert_array_equal(store.at().table(f"bpr.{parameter}").get(list(found)), list(found.values()))
    assert list((tmp_path / "saved").glob("*.pth")) == []


def test_stopped_and_started_again_equals_uninterrupted(tmp_path: Path) -> None:
    """The next epoch is the next one; values, Adam's moments and steps end as those of a training that was not stopped."""
    whole, parts, (users, items) = new_store(), new_store(), pairs()
    kept(tmp_path / "a", whole, users, items, epochs=4).fit()
    stopped = kept(tmp_path / "b", parts, users, items, epochs=4)
    stopped.trainer.epochs = 2
    stopped.fit()
    again = kept(tmp_path / "c", parts, users, items, epochs=4)
    assert (again.trainer.start_epoch, again.trainer.kept.resumed) == (2, f"bpr at epoch 2 of version {parts.at().id}")
    again.fit()
    assert state_of(parts.at()) == state_of(whole.at())
    kept(tmp_path / "d", parts, users, items, epochs=4).fit()
    assert len(list(parts.log())) == 5


def test_new_ids_and_another_order_are_followed_by_id(tmp_path: Path) -> None:
    """Every vector and moment is that of its id before another epoch is trained; epochs are counted anew on other data.

    RecBole alone refuses the new size, and takes the other order without a word.
    """
    store, (users, items) = new_store(), pairs()
    kept(tmp_path / "a", store, users, items, epochs=3).fit()
    learned = {parameter: store.at().table(f"bpr.{parameter}") for parameter in FIELDS}
    more = kept(tmp_path / "b", store, [*users[::-1], "new", "u3"], [*items[::-1], "i4", "brand new"], epochs=2)
    assert (more.trainer.start_epoch, len(more.data.field2id_token["user_id"])) == (0, 32)
    for parameter, table in learned.items():
        for token, vector in more.vectors(parameter).items():
            if token not in ("new", "brand new"):
                np.testing.assert_array_equal(vector, table.get([token])[0])
    weight = more.model.user_embedding.weight
    moments = more.trainer.optimizer.state[weight]["exp_avg"].numpy()
    tokens = more.data.field2id_token["user_id"]
    for row in (1, 2, 3, 20):
        np.testing.assert_array_equal(moments[row], learned["user_embedding.weight"].slot("exp_avg").get([tokens[row]])[0])
    more.fit()
    assert store.at().entities == {"user": 31, "item": 26}


def test_best_epochs_are_committed_and_evaluated(tmp_path: Path) -> None:
    """With validation data RecBole's own rule says which epoch becomes a version, and ``evaluate`` goes back to it."""
    store, (users, items) = new_store(), pairs()
    run = kept(tmp_path, store, users, items, epochs=6, shares=(0.8, 0.2, 0.0))
    run.fit(judged=True)
    scores = [version.metadata["valid_score"] for version in store.log() if "valid_score" in version.metadata]
    assert scores == sorted(scores, reverse=True)
    assert run.trainer.best_valid_score == scores[0]
    best = run.trainer.evaluate(run.valid)
    assert best["ndcg@20"] == scores[0]


def test_annealing_of_multivae_goes_on(tmp_path: Path) -> None:
    """Its counter is an attribute of the model, which RecBole saves nowhere; item rows lie on two axes."""
    store, (users, items) = new_store(), pairs()
    fields = {"encoder.0.weight": "item_id", "decoder.2.weight": "item_id", "decoder.2.bias": "item_id"}
    updates = []
    for stop, order in ((2, 1), (3, -1)):
        run = Run(tmp_path / str(stop), users[::order], items[::order], epochs=stop, model="MultiVAE")
        names = {name.replace("mlp_layers.", "") for name, _ in run.model.named_parameters()}
        run.trainer.keep(store, run.data, _named(run, fields, names), name="vae", attributes=("update",))
        run.fit()
        updates.append(run.model.update)
    assert updates[1] == updates[0] * 3 // 2 > 0


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (
            {"user_embedding.weight": "user"},
            {},
            "field 'user' of 'user_embedding.weight': the data has tokens of user_id, ",
        ),
        (FIELDS, {"attributes": ("update",)}, "attribute 'update': BPR has none of that name"),
        (FIELDS, {"every": 0}, "every 0: give a whole number from 1"),
        (FIELDS, {"every": 1.5}, "every 1.5: give a whole number from 1"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path: Path, fields: Any, options: dict[str, Any], message: str) -> None:
    """They are refused before anything is trained, and so is a training without a store."""
    run = Run(tmp_path, *pairs(), epochs=1, dim=8)
    with pytest.raises(InvalidInputError, match=message):
        run.trainer.keep(new_store(), run.data, fields, **options)
    with pytest.raises(InvalidInputError, match=r"fit of a KeptTrainer without a store: call keep\(store, data, fields\) first"):
        run.fit()
    with pytest.raises(InvalidInputError, match="evaluate of a KeptTrainer without a store"):
        run.trainer.evaluate(run.train)
    assert run.trainer.train_loss_dict == {}


def test_the_axis_of_rows_can_be_said(tmp_path: Path) -> None:
    """Layers as wide as there are items and one of padding keep what each item has."""
    store, (users, items) = new_store(), pairs(200, n_items=15)
    for epochs in (1, 2):
        run = Run(tmp_path / str(epochs), users[:: 3 - 2 * epochs], items[:: 3 - 2 * epochs], epochs=epochs, model="MultiVAE")
        name = next(name for name, _ in run.model.named_parameters() if name.startswith("encoder"))
        run.trainer.keep(store, run.data, {name: Rows("item_id", axis=1)}, name="vae")
        weight = dict(run.model.named_parameters())[name].detach()
        assert weight.shape == (16, 16)
        if epochs == 2:
            found = store.at().table(f"vae.{name}").get([str(token) for token in run.data.field2id_token["item_id"][1:]])
            np.testing.assert_array_equal(weight[:, 1:].numpy().T, found)
        run.fit()


def _named(run: Run, fields: dict[str, str], names: set[str]) -> dict[str, str]:
    """Return the fields by the names that the parameters of this release have."""
    assert fields.keys() <= names
    known = {name.replace("mlp_layers.", ""): name for name, _ in run.model.named_parameters()}
    return {known[name]: field for name, field in fields.items()}


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_movielens_stopped_reordered_and_grown(tmp_path: Path, data_dir: Path) -> None:
    """Four fifths of 100,000 pairs: stopped halfway, the file turned round, resumed, recall is that of an uninterrupted training.

    RecBole alone loses a third of it there. With the last fifth, its new users and items, and another order, 30 epochs more come
    near what RecBole learns from all pairs in 90.
    """
    chain = Chain(tmp_path, data_dir)
    uninterrupted = chain.run("one", epochs=60)["recall@20"]
    store = embstore.create(tmp_path / "store", durability="none")
    chain.run("one", epochs=60, stop_at=30, store=store)
    resumed = chain.run("one", turned=True, epochs=60, store=store)
    assert resumed["resumed"].startswith("bpr at epoch 30 of version ")
    assert abs(resumed["recall@20"] - uninterrupted) < 0.015
    chain.run("one", epochs=60, stop_at=30, save=tmp_path / "stopped.pth")
    assert chain.run("one", turned=True, epochs=60, resume=tmp_path / "stopped.pth")["recall@20"] < uninterrupted - 0.03
    grown = chain.run("both", turned=True, epochs=30, store=store)
    assert (grown["users"], len(store.at().ids("user"))) == (943, 943)
    at_once = chain.run("both", epochs=90)["recall@20"]
    assert grown["recall@20"] > at_once - 0.02


class Chain:
    """MovieLens-100k by time: its first four fifths, all of it, the last pairs of each user held out; every job a new process."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self._folder, self._jobs = folder, 0
        columns = np.loadtxt(data_dir / "ml-100k" / "ml-100k.inter", skiprows=1)
        columns = columns[np.argsort(columns[:, 3], kind="stable")].astype(np.int64)
        cut = int(0.8 * len(columns))
        (one, held_one), (two, held_two) = map(_hold_out, (columns[:cut], columns[cut:]))
        both = np.concatenate([one, two])
        parts = {"one": one, "both": both, "one targets": held_one, "both targets": held_two}
        self._files = {name: folder / f"{name}.npy" for name in [*parts, "one turned", "both turned"]}
        for name, part in [*parts.items(), ("one turned", one[::-1]), ("both turned", both[::-1])]:
            np.save(self._files[name], part[:, :2].T)

    def run(self, name: str, *, epochs: int, turned: bool = False, store: Store | None = None, **more: Any) -> dict[str, Any]:
        """Do a job elsewhere; see `tests.adapters.recbole_runs.do`."""
        self._jobs += 1
        job: dict[str, Any] = {"seed": 1, "every": 10, "stop_at": None, "save": None, "resume": None, "epochs": epochs}
        job |= {"folder": self._folder / f"job {self._jobs}", "store": None if store is None else store.url}
        files = {"pairs": f"{name} turned" if turned else name, "had": name, "targets": f"{name} targets"}
        job |= {what: self._files[file] for what, file in files.items()} | more
        command = [sys.executable, "-W", "ignore", "-m", "tests.adapters.recbole_runs"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        told = json.dumps(job, default=str)
        done = subprocess.run(command, input=told, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _hold_out(part: Any) -> tuple[Any, Any]:
    """Return the pairs of a part without the last fifth of each user who has five or more, and those."""
    order = np.argsort(part[:, 0], kind="stable")
    n_pairs = np.bincount(part[:, 0])
    left = np.empty(len(part), np.int64)
    left[order] = np.repeat(np.cumsum(n_pairs), n_pairs) - np.arange(len(part)) - 1
    n_of_user = n_pairs[part[:, 0]]
    is_out = (n_of_user >= 5) & (left < n_of_user // 5)
    return part[~is_out], part[is_out]


def test_pairs_are_an_example_of_interactions() -> None:
    """Each pair of the example is there once."""
    users, items = pairs()
    assert len(set(zip(users, items, strict=True))) == len(Interactions(users, items)) == 400


def test_the_page_about_adapters_runs(tmp_path: Path) -> None:
    """What the documentation shows of RecBole is true."""
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    (block,) = [part for part in re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "recbole" in part]
    store, (users, items) = new_store(), pairs()
    settings = Run(tmp_path, users, items, epochs=2, dim=8, shares=(0.6, 0.2, 0.2)).config.external_config_dict
    page = tmp_path / "page.py"
    page.write_text(f"def run(store, settings):\n{indent(block, '    ')}\n    return trainer\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("recbole_page", page)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trainer = module.run(store, settings)
    assert store.at().metadata["epoch"] == trainer.kept.epoch > 0
