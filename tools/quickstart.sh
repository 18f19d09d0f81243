#!/usr/bin/env bash
# From a fresh clone to a trained, tuned and measured language model: makes .venv, installs the pinned dependencies
# and runs the main job. Needs Python >= 3.11, git and bash. Further arguments go to the job:
#   bash tools/quickstart.sh --workdir=runs/another
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment
cd "$root"
exec "$venv/bin/python" -m experiments.lifecycle --config=configs/lifecycle.py "$@"
