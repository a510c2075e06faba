"""The adapters against the real libraries; `make test-adapters` has an environment for those that are not installed here."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDED = {
    "test_loop.py": "torch",
    "test_places.py": "torch",
    "test_refused.py": "torch",
    "test_recbole.py": "recbole",
    "test_lightning.py": "lightning",
}
collect_ignore = [file for file, library in _NEEDED.items() if find_spec(library) is None]
