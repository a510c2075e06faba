#!/usr/bin/env bash
# The adapters for other frameworks against the real libraries, in an environment of their own beside .venv.
#   adapters.sh [ARGUMENT...]   make .venv-adapters, or bring it up to date, and run tests/adapters in it, with arguments of pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

install() {
  pip="$1 -m pip install --quiet --quiet --disable-pip-version-check --constraint tools/constraints-adapters.txt"
  $pip torch
  $pip lightning colorama colorlog psutil pyyaml scikit-learn tensorboard texttable tqdm hypothesis pytest pytest-timeout
  # Without what it asks for: an old release of ray, which only its search of settings needs.
  $pip --no-deps recbole
  $pip --editable '.[torch]'
}

if ! python=$(find_python 3.11 3.12 3.13); then
  echo "adapters: no CPython 3.11, 3.12 or 3.13 with venv and ensurepip was found; install one and put it on PATH" >&2
  exit 1
fi
ensure_venv .venv-adapters "$python" install pyproject.toml tools/constraints-adapters.txt
exec .venv-adapters/bin/python -m pytest tests/adapters "$@"
