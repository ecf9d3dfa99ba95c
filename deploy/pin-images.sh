#!/usr/bin/env bash
# Writes the digest of every image of others into docker-compose.yml and Dockerfile: TAG becomes TAG@sha256:…, as the
# registry answers now. Run it again for newer images. Nothing is written unless every image is found.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
if ! docker buildx version >/dev/null 2>&1; then
  echo "No digest was written: only a registry knows them, and Docker with buildx asks it. Run this where 'docker buildx version' works." >&2
  exit 1
fi
edits=()
while read -r image; do
  digest=$(docker buildx imagetools inspect "$image" | awk '$1 == "Digest:" { print $2; exit }')
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "$image: '$digest' is no digest; nothing was written" >&2; exit 1; }
  echo "$image@$digest"
  edits+=(-e "s#^( *image: $image|ARG PYTHON=${image#python:})(@sha256:[0-9a-f]+)?\$#\1@$digest#")
done < <(sed -nE 's/^ARG PYTHON=/image: python:/; s/^ *image: ([^@]+)(@.*)?$/\1/p' docker-compose.yml Dockerfile)
sed -i -E "${edits[@]}" docker-compose.yml Dockerfile
