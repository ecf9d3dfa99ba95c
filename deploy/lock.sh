#!/usr/bin/env bash
# Writes requirements/<extra>.lock, exact versions for Python 3.11 to 3.13. All extras are resolved together first, so
# that a package which stands in several locks has one version. torch, torchvision and what only torch's CUDA build
# needs are left out: `make setup` installs them first, with their own dependencies. Versions that are locked stay, unless
# UPGRADE=1 asks for newer ones.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
extras="api worker-cpu worker-gpu embedded dev"
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
common=(--quiet --universal --fork-strategy fewest --python-version 3.11 --override requirements/overrides.txt --no-header --no-annotate)

[ -n "${UPGRADE:-}" ] || grep -hE '^[A-Za-z0-9._-]+==' requirements/*.lock | sort -u >"$tmp/all.txt"
# shellcheck disable=SC2046
"$uv" pip compile pyproject.toml "${common[@]}" $(printf -- '--extra %s ' $extras) -o "$tmp/all.txt"
"$uv" pip compile requirements/torch.in "${common[@]}" -c "$tmp/all.txt" -o "$tmp/torch.txt"
omit=(); for name in torch torchvision $(grep -oE '^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+|triton)' "$tmp/torch.txt"); do
  omit+=(--no-emit-package "$name"); done

for extra in $extras; do
  "$uv" pip compile pyproject.toml "${common[@]}" --extra "$extra" -c "$tmp/all.txt" "${omit[@]}" -o "$tmp/$extra.lock"
  { echo "# Written by make lock. Install: pip install --no-deps -r requirements/$extra.lock (torch, torchvision first)."
    grep -v "^#" "$tmp/$extra.lock" | "${uv%uv}python" deploy/plain_markers.py; } >"requirements/$extra.lock"
  echo "requirements/$extra.lock: $(grep -c == "requirements/$extra.lock") packages"
done
