# Sourced by quickstart.sh and test.sh: makes the virtual environment and installs the pinned dependencies into it.
#
# Variables you may set:
#   PYTHON                 the interpreter to use (default: the first of python3, python3.13, 3.12, 3.11 that fits)
#   VENV                   where the environment lives (default: .venv in the repository)
#   LIFECYCLE_TORCH_INDEX  address of a package index that has CPU wheels of torch; only the oracles need torch, and
#                          without this the default Linux wheel brings several gigabytes of CUDA libraries along

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${VENV:-$root/.venv}"
case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac

fail() {
  echo "error: $*" >&2
  exit 1
}

python_fits() { # interpreter, first version, version above the last one
  "$1" -c "import sys, venv, ensurepip; sys.exit(not ($2 <= sys.version_info[:2] < $3))" >/dev/null 2>&1
}

choose_python() {
  local candidate range
  if [ -n "${PYTHON:-}" ]; then
    python_fits "$PYTHON" '(3, 11)' '(4, 0)' || fail "PYTHON=$PYTHON is not a Python >= 3.11 with the venv module"
    echo "$PYTHON"
    return
  fi
  # 3.11 to 3.13 are the versions that the pins were tried with; a newer one is taken only if none of them is there.
  for range in '(3, 14)' '(4, 0)'; do
    for candidate in python3 python3.13 python3.12 python3.11 python; do
      if python_fits "$candidate" '(3, 11)' "$range"; then
        echo "$candidate"
        return
      fi
    done
  done
  fail "no Python >= 3.11 with the venv module on PATH; install one or set PYTHON=/path/to/python3"
}

fingerprint() { # of everything that decides what is installed
  cat "$root/pyproject.toml" "$root/tools/constraints.txt" |
    "$venv/bin/python" -c "import hashlib, sys; print(sys.version.split()[0], sys.executable, hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
}

prepare_environment() { # extras...: afterwards $venv/bin/python has the project and these extras
  local python wanted extra missing=0
  if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
    python="$(choose_python)"
    echo "Making $venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$venv"
  fi
  wanted="$(fingerprint)"
  for extra in base "$@"; do
    [ "$(cat "$venv/.installed-$extra" 2>/dev/null || true)" = "$wanted" ] || missing=1
  done
  [ "$missing" = 1 ] || return 0
  local extras=""
  if [ "$#" -gt 0 ]; then extras="[$(IFS=,; echo "$*")]"; fi
  echo "Installing the pinned dependencies$([ "$#" -gt 0 ] && echo " and extras: $*" || true) (a few minutes the first time)"
  (cd "$root" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    ${LIFECYCLE_TORCH_INDEX:+--extra-index-url "$LIFECYCLE_TORCH_INDEX"} \
    -c tools/constraints.txt -e ".$extras")
  for extra in base "$@"; do
    echo "$wanted" >"$venv/.installed-$extra"
  done
}
