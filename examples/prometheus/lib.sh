# Starts the exporter, and Prometheus with the rules in the given file.
folder=$(mktemp -d)
trap 'kill $exporter $prometheus 2>/dev/null; wait 2>/dev/null; rm -rf "$folder"' EXIT
psql -Xq -v ON_ERROR_STOP=1 -f setup.sql -f setup.sql -c "ALTER ROLE prometheus PASSWORD 'prometheus'"
EXPORTER_PORT=$(../free-port)
# start RULES INTERVAL: waits until both answer.
start()
{
	# The exporter does not accept all of libpq's environment variables.
	env -i PATH="$PATH" DATA_SOURCE_NAME="host=$PGHOST port=$PGPORT user=prometheus password=prometheus dbname=$PGDATABASE sslmode=disable" \
		prometheus-postgres-exporter --web.listen-address="127.0.0.1:$EXPORTER_PORT" --extend.query-path=queries.yaml \
		--disable-default-metrics --disable-settings-metrics >"$folder/exporter.log" 2>&1 &
	exporter=$!
	until curl -sf "http://127.0.0.1:$EXPORTER_PORT/metrics" >"$folder/metrics"; do kill -0 $exporter || { cat "$folder/exporter.log"; exit 1; }; sleep 0.2; done
	PROMETHEUS_PORT=$(../free-port)
	sed "s/30s/$2/; s/127.0.0.1:9187/127.0.0.1:$EXPORTER_PORT/; s,alerts.yml,$1," prometheus.yml >"$folder/prometheus.yml"
	prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
		--web.listen-address="127.0.0.1:$PROMETHEUS_PORT" >"$folder/prometheus.log" 2>&1 &
	prometheus=$!
	until curl -sf "http://127.0.0.1:$PROMETHEUS_PORT/-/ready" >/dev/null; do kill -0 $prometheus || { cat "$folder/prometheus.log"; exit 1; }; sleep 0.2; done
}
