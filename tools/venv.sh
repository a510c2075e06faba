# Functions that make virtual environments, for env.sh and two_libraries.sh to source.

# find_python VERSION...: print the first interpreter of these versions that really runs (a shim on PATH may not).
# Called inside a virtual environment, it prints the interpreter below it.
find_python() {
  local version candidate
  for version in "$@"; do
    for candidate in "python$version" python3 "$(pyenv root 2>/dev/null || true)/versions/$version".*/bin/"python$version"; do
      if "$candidate" -c "$_IS_VERSION" "$version" 2>/dev/null; then return 0; fi
    done
  done
  return 1
}

_IS_VERSION='
import sys, ensurepip, venv
if "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
print(sys._base_executable)
'

# ensure_venv DIR PYTHON INSTALL FILE...: make DIR with PYTHON and fill it with "INSTALL DIR/bin/python".
# Nothing is done where DIR was made here, by that PYTHON, from these FILEs as they are now.
# The stamp is taken away first and written last: without one, DIR was left half made and is made anew.
ensure_venv() (
  dir=$1 python=$2 install=$3
  shift 3
  stamp=$dir/made-from
  place="$(pwd -P) $python"
  contents="$(cat "$@" | cksum)"
  # Two calls at once take turns; without flock they had better not meet.
  if command -v flock >/dev/null; then
    exec 9<.
    flock 9
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" = "$place"$'\n'"$contents" ] && _works "$dir"; then
    return 0
  fi
  if ! { [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$place" ] && _works "$dir"; }; then
    rm -f "$stamp"
    echo "making $dir with $python" >&2
    "$python" -m venv --clear "$dir"
  fi
  rm -f "$stamp"
  "$install" "$dir/bin/python"
  printf '%s\n%s\n' "$place" "$contents" >"$stamp"
)

_works() {
  [ -x "$1/bin/pytest" ] && "$1/bin/python" -c '' 2>/dev/null
}
