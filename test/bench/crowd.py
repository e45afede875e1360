"""crowd.py [dead]
	What a fetch of 100 costs, in buffers and milliseconds, and its ratio to what
	it costs with nothing beside: with a million that wait, ten thousand of one
	piece, a hundred syncs and sixteen workers; then with so many dead rows,
	2,900,000 by default, that a snapshot keeps.  Medians of long-lived sessions.
	On the server that PGHOST names, in a database with queue.sql and sync s."""

import re
import statistics
import sys
import time

import psycopg

DEAD = int(sys.argv[1]) if len(sys.argv) > 1 else 2900000


def connect():
    return psycopg.connect(autocommit=True, prepare_threshold=None)


class Worker:
    def __init__(self):
        self.db = connect()
        self.ids = []

    def fetch(self, batch=100):
        """Finish what is held, and fetch; return buffers and milliseconds."""
        self.db.execute("SELECT postalytics.ack('s', %s::bigint[])", [self.ids])
        with self.db.transaction():
            began = time.perf_counter()
            plan = self.db.execute(
                "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF)"
                f" CREATE TEMP TABLE fetched ON COMMIT DROP AS SELECT delivery_id FROM postalytics.fetch('s', {batch})"
            ).fetchall()
            took = (time.perf_counter() - began) * 1000
            self.ids = [id for (id,) in self.db.execute("SELECT delivery_id FROM fetched")]
        scan = "\n".join(line for (line,) in plan)
        return sum(int(n) for n in re.findall(r"(?:hit|read)=(\d+)", re.search("Buffers: shared.*", scan)[0])), took


def replay(db, copies=1):
    for _ in range(copies):
        db.execute(
            "INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)"
            " SELECT 's', piece_id, account, status, occurred_at, c"
            " FROM (SELECT postalytics.due_clock() AS c) AS c, postalytics.events"
            " ORDER BY occurred_at"
        )


def measure(workers, rounds):
    samples = [workers[i % len(workers)].fetch() for i in range(rounds * len(workers))][len(workers) :]
    return [statistics.median(values) for values in zip(*samples)]


def report(name, cost, usual):
    ratios = [c / u for c, u in zip(cost, usual)]
    print(f"{name}\t{cost[0]:.0f}\t{cost[1]:.2f}\t{ratios[0]:.2f}\t{ratios[1]:.2f}", flush=True)


admin = connect()
admin.execute("TRUNCATE postalytics.deliveries_unfinished")
worker = Worker()
replay(admin)
usual = measure([worker], 30)
report("nothing beside", usual, usual)

# A crowd, which the worker has known as an empty queue.
for i in range(99):
    admin.execute("SELECT FROM postalytics.create_sync(%s)", [f"other {i}"])
admin.execute(
    "INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)"
    " SELECT CASE WHEN i % 2 = 0 THEN 's' ELSE 'other ' || i % 99 END, 'w' || i, 'Mailed', now(), c + i % 7 * interval '1 us'"
    " FROM (SELECT postalytics.due_clock() AS c) AS c, generate_series(1, 1000000) AS i"
)
admin.execute(
    "INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, status, occurred_at, due_at)"
    " SELECT 's', 'visited', 'pURLOpened', now() - i * interval '1 min', c - interval '1 hour'"
    " FROM (SELECT postalytics.due_clock() AS c) AS c, generate_series(1, 10000) AS i"
)
workers = [worker] + [Worker() for _ in range(15)]
measure(workers, 2)
time.sleep(0.2)
measure(workers, 2)
report("a crowd", measure(workers, 10), usual)
admin.execute("ANALYZE")
report("a crowd, analyzed", measure(workers, 10), usual)
for other in workers[1:]:
    other.fetch()
    other.db.close()
admin.execute("TRUNCATE postalytics.deliveries_unfinished")

# A snapshot that keeps the dead rows of what the worker itself finishes.
snapshot = psycopg.connect()
snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
snapshot.execute("SELECT")
worker.ids = []
replay(admin)
usual = measure([worker], 30)
report("a new snapshot", usual, usual)
dead = 0
while dead < DEAD:
    ids = [id for (id,) in worker.db.execute("SELECT delivery_id FROM postalytics.fetch('s', 500, ack => %s::bigint[])", [worker.ids])]
    if not ids:
        replay(admin)
    dead += len(ids)
    worker.ids = ids
report(f"{dead} dead rows", measure([worker], 30), usual)
print("bytes\t%d" % admin.execute("SELECT pg_total_relation_size('postalytics.deliveries_unfinished')").fetchone()[0])
snapshot.rollback()
snapshot.close()
admin.execute("VACUUM postalytics.deliveries_unfinished")
admin.execute("SELECT FROM postalytics.maintain()")
print("bytes once it has ended\t%d" % admin.execute("SELECT pg_total_relation_size('postalytics.deliveries_unfinished')").fetchone()[0])
