#!/usr/bin/env bash
# Lint, types and the whole test suite, in an environment with the pinned dependencies and the oracles.
#   bash tools/test.sh                    everything
#   bash tools/test.sh --quick            without the oracles (no torch, no transformers) and the tests over ten seconds
#   bash tools/test.sh --browser          the page alone, in headless Chromium (Debian: chromium, chromium-driver)
#   bash tools/test.sh -k attention -x    further arguments go to pytest
# XLA_FLAGS='--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true' tests the machine code that users run
# (on Python 3.12 without the second flag); tests/conftest.py says what is left out for time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

quick=0
browser=0
arguments=()
for argument in "$@"; do
  case "$argument" in
    --quick) quick=1 ;;
    --browser) browser=1 ;;
    *) arguments+=("$argument") ;;
  esac
done

if [ "$browser" = 1 ]; then
  prepare_environment test serve browser
  cd "$root"
  exec "$venv/bin/python" -m pytest tests/browser ${arguments[@]+"${arguments[@]}"}
fi
if [ "$quick" = 1 ]; then
  prepare_environment test serve rag
  arguments=(-m "not oracle and not slow" ${arguments[@]+"${arguments[@]}"})
else
  prepare_environment test serve rag lancedb oracles
fi
cd "$root"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m mypy
# Compilation, which is most of the time, runs on one core: two processes, each with whole files so that fixtures are shared.
"$venv/bin/python" -m pytest -n 2 --dist loadfile --max-worker-restart 0 ${arguments[@]+"${arguments[@]}"}
