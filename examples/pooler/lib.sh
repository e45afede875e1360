# Starts PgBouncer with pgbouncer.ini, in front of the server that the PG* variables
# specify.
folder=$(mktemp -d)
POOLER_PORT=$(../free-port)
psql -Xq -v ON_ERROR_STOP=1 -f setup.sql -f setup.sql -c "ALTER ROLE crm_worker PASSWORD 'worker'" >/dev/null
(umask 077; psql -XAtq -f users.sql >"$folder/users.txt")
eval "cat <<INI
$(cat pgbouncer.ini)
INI" >"$folder/pgbouncer.ini"
PATH=$PATH:/usr/sbin pgbouncer -q "$folder/pgbouncer.ini" 2>"$folder/log" &
bouncer=$!
trap 'for worker in $others; do kill $worker 2>/dev/null || true; wait $worker || true; done; kill $bouncer; rm -rf "$folder"' EXIT
export DATABASE="host=127.0.0.1 port=$POOLER_PORT dbname=crm user=crm_worker password=worker"
pooled() { psql -XAtq -v ON_ERROR_STOP=1 "$DATABASE" "$@"; }
until pooled -c 'SELECT 1' >/dev/null 2>&1; do kill -0 $bouncer || { cat "$folder/log"; exit 1; }; sleep 0.1; done
