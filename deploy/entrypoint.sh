#!/bin/sh
# Puts the content of files into the environment: for each NAME_FILE of the variables below, NAME is what the file holds.
# A secret then stands neither in the compose file nor in what the engine's inspection shows.
set -eu
for name in HEMOSTAT_REDIS_URL HEMOSTAT_API_KEY; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    [ -r "$file" ] || { echo "${name}_FILE: $file cannot be read; deploy/secrets.sh writes it" >&2; exit 1; }
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
  fi
done
exec "$@"
