# Starts the four listeners on the channel of sync crm.  The output of each is in
# $folder/NAME.
folder=$(mktemp -d)
trap 'kill -- $listeners 2>/dev/null; rm -rf "$folder"' EXIT
gcc -Wall -Wextra -Werror -I"$(pg_config --includedir)" listen.c -o "$folder/listen" -lpq
psql -XAtqc "SELECT FROM postalytics.create_sync('crm')"
start() { setsid "${@:2}" postalytics_crm >"$folder/$1" 2>"$folder/$1.err" & listeners="$listeners -$!"; }
start psql ./listen.sh
start python python3 listen.py
start node node listen.js
start c "$folder/listen"
listening() { psql -XAtqc "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"; }
until [ "$(listening)" = 4 ] && [ "$(cat "$folder/python" "$folder/node" "$folder/c" | grep -c '^listening')" = 3 ]; do sleep 0.1; done
ingest() { psql -XAtqc "SELECT FROM postalytics.ingest('{\"mailId\": \"$1\", \"eventDate\": \"2026-10-06\", \"eventType\": 4}')"; }
