#!/usr/bin/env bash
# Make .venv with everything for development, or bring it up to date; does nothing where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

install() {
  # torch by itself and first: where a CPU build is offered, nothing later may pull in another one.
  "$1" -m pip install --quiet --quiet --disable-pip-version-check --constraint tools/constraints.txt torch
  "$1" -m pip install --quiet --quiet --disable-pip-version-check --constraint tools/constraints.txt --editable '.[torch,parquet,dev]'
}

if ! python=$(find_python 3.11 3.12 3.13); then
  echo "make env: no CPython 3.11, 3.12 or 3.13 with venv and ensurepip was found; install one and put it on PATH" >&2
  exit 1
fi
ensure_venv .venv "$python" install pyproject.toml tools/constraints.txt
