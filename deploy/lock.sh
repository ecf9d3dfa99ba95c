#!/usr/bin/env bash
# Writes requirements/<extra>.lock, exact versions for Python 3.11 to 3.13. All extras are resolved together first, so
# that a package of several locks has one version. torch, torchvision and what only torch's CUDA build needs are in
# torch.lock alone. Versions that are locked stay, unless UPGRADE=1 asks for newer ones. pip compares each file that it
# downloads with the hashes here, which are those of PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
extras="api worker-cpu worker-gpu demo embedded dev"
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
common=(--quiet --universal --fork-strategy fewest --python-version 3.11 --override requirements/overrides.txt --no-header --no-annotate --generate-hashes)

[ -n "${UPGRADE:-}" ] || grep -hE '^[A-Za-z0-9._-]+==' requirements/*.lock | sed 's/ *\\$//' | sort -u >"$tmp/all.txt"
# shellcheck disable=SC2046
"$uv" pip compile pyproject.toml "${common[@]}" $(printf -- '--extra %s ' $extras) -o "$tmp/all.txt"
"$uv" pip compile requirements/torch.in "${common[@]}" -c "$tmp/all.txt" -o "$tmp/torch.lock"
omit=(); for name in torch torchvision $(grep -oE '^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+|triton)' "$tmp/torch.lock"); do
  omit+=(--no-emit-package "$name"); done

for extra in $extras; do
  "$uv" pip compile pyproject.toml "${common[@]}" --extra "$extra" -c "$tmp/all.txt" "${omit[@]}" -o "$tmp/$extra.lock"
done
for lock in torch $extras; do
  { echo "# Written by make lock. Install: pip install --no-deps --require-hashes -r requirements/$lock.lock"
    grep -v "^#" "$tmp/$lock.lock" | "${uv%uv}python" deploy/plain_markers.py; } >"requirements/$lock.lock"
  echo "requirements/$lock.lock: $(grep -c == "requirements/$lock.lock") packages"
done
