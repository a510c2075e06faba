#!/usr/bin/env bash
# The store on icechunk 2, which needs CPython 3.12 or 3.13, beside the icechunk 1 of .venv.
#   two_libraries.sh python    make .venv-icechunk2 and print its interpreter; print nothing where no such CPython runs
#   two_libraries.sh test      run the tests of the store in it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

install() {
  "$1" -m pip install --quiet --quiet --disable-pip-version-check --requirement tools/constraints-icechunk2.txt
  # Without its dependencies: the package itself asks for icechunk 1.
  "$1" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
}

python=$(find_python 3.12 3.13 || true)
if [ -n "$python" ]; then
  ensure_venv .venv-icechunk2 "$python" install pyproject.toml tools/constraints-icechunk2.txt
fi

case "${1:-}" in
  python)
    if [ -n "$python" ]; then echo "$PWD/.venv-icechunk2/bin/python"; fi
    ;;
  test)
    if [ -z "$python" ]; then
      echo "icechunk 2: not tested, for no CPython 3.12 or 3.13 runs here"
      exit 0
    fi
    # All of them; random ones try less, for icechunk 2 reads files of this machine several times slower. What goes from one
    # library to the other is tested from .venv.
    cd tests/store
    HYPOTHESIS_PROFILE=brief exec ../../.venv-icechunk2/bin/python -m pytest -n 2 --rootdir ../.. -c ../../pyproject.toml \
      --ignore test_two_libraries.py .
    ;;
  *)
    echo "usage: tools/two_libraries.sh python|test" >&2
    exit 2
    ;;
esac
