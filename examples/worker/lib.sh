# Starts the three workers, each on a separate sync, with a command that appends the id
# of the piece to $folder/NAME.delivered.  It fails if the id begins with "bad", and takes a
# second if the id begins with "slow".
folder=$(mktemp -d)
trap 'kill $workers 2>/dev/null || true; rm -rf "$folder"' EXIT
gcc -Wall -Wextra -Werror -I"$(pg_config --includedir)" worker.c -o "$folder/worker" -lpq
cat >"$folder/tell" <<'SH'
#!/bin/bash
id=$(sed 's/.*"mailId" *: *"\([^"]*\)".*/\1/')
case $id in bad*) exit 1 ;; slow*) sleep 1 ;; esac
echo "$id" >>"$1"
SH
chmod +x "$folder/tell"
names='python node c'
for name in $names; do
	psql -XAtqc "SELECT FROM postalytics.create_sync('$name', ordered => false)"
	: >"$folder/$name.delivered"
done
start() { "$@" 2>>"$folder/$name.err" & workers="$workers $!"; eval "${name}_pid=$!"; }
start_all()
{
	workers=
	name=python; start python3 worker.py python "$folder/tell" "$folder/python.delivered"
	name=node; start node worker.js node command "$folder/tell" "$folder/node.delivered"
	name=c; start "$folder/worker" c "$folder/tell $folder/c.delivered"
}
ingest() { psql -XAtqc "SELECT FROM postalytics.ingest((SELECT json_agg(json_build_object('mailId', '$1' || i, 'eventDate', '2026-10-06', 'eventType', 4)) FROM generate_series(1, $2) AS i))"; }
start_all
