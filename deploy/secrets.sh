#!/usr/bin/env bash
# Writes secrets/ for docker-compose.yml, once: an API key of an administrator and one for Prometheus that reads metrics
# only, the password of Redis, Grafana's. What is there already is kept. The folder is the owner's alone; the files in it
# can be read by the containers' users. `docker compose exec api hemostat keys` changes the API keys in secrets/keys.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
umask 077
mkdir -p secrets/keys
if [ -f secrets/keys/api_keys ]; then
  echo "secrets/ is there already; remove it to begin anew"
  exit 0
fi
random() { python3 -c 'import secrets; print(secrets.token_urlsafe(32))'; }
digest() { printf %s "$1" | sha256sum | cut -d' ' -f1; }
api=$(random) scrape=$(random) redis=$(random) grafana=$(random)
printf '%s' "$api" >secrets/api_key
printf '%s' "$scrape" >secrets/scrape_key
printf '%s' "$grafana" >secrets/grafana_password
printf 'redis://hemostat:%s@redis:6379/0' "$redis" >secrets/redis_url
# default: nobody. hemostat: everything but what administers the server; token ids of samples that expired leave its disk
# by bgrewriteaof. health: may ask whether it lives.
cat >secrets/redis_acl <<END
user default off
user hemostat on #$(digest "$redis") ~* &* +@all -@admin -@dangerous +info +bgrewriteaof
user health on nopass resetkeys resetchannels -@all +ping
END
printf 'owner %s admin\nprometheus %s metrics\n' "$(digest "$api")" "$(digest "$scrape")" >secrets/keys/api_keys
find secrets -type f -exec chmod 0444 {} +
chmod 0777 secrets/keys
echo "API key (secrets/api_key): $api"
echo "Grafana (http://127.0.0.1:3000), user admin, password in secrets/grafana_password: $grafana"
