"""crowd.py [dead]
	Prints the cost of a fetch of 100 in buffers and milliseconds, and its ratio to
	the cost on an otherwise empty table.  The first fetches are by sixteen workers,
	beside a million waiting deliveries of a hundred syncs, of which one piece has
	ten thousand.  The others are beside dead rows (2,900,000 by default) that a
	snapshot keeps.  The costs are medians over long-lived sessions.  PGHOST names
	the server; the database must have queue.sql and sync s."""

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
        self.db.execute("CREATE TEMP TABLE fetched (id bigint)")
        self.ids = []

    def ack(self):
        self.db.execute("SELECT postalytics.ack('s', %s::bigint[])", [self.ids])

    def fetch(self, batch=100):
        """Finish the leased deliveries, then return the milliseconds of a fetch."""
        self.ack()
        began = time.perf_counter()
        rows = self.db.execute("SELECT delivery_id FROM postalytics.fetch('s', %s)", [batch]).fetchall()
        took = (time.perf_counter() - began) * 1000
        self.ids = [id for (id,) in rows]
        return took

    def buffers(self):
        """As fetch, but return the number of buffers that the fetch touches."""
        self.ack()
        plan = self.db.execute(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) INSERT INTO fetched SELECT delivery_id FROM postalytics.fetch('s', 100)"
        ).fetchall()
        self.ids = [id for (id,) in self.db.execute("DELETE FROM fetched RETURNING id")]
        hits = re.search("Buffers: shared.*", "\n".join(line for (line,) in plan))[0]
        return sum(int(n) for n in re.findall(r"(?:hit|read)=(\d+)", hits))


def replay(db, copies=1, prefix=""):
    """Insert due deliveries of all events or, with a prefix, of pieces without events."""
    for i in range(copies):
        db.execute(
            "INSERT INTO postalytics.deliveries_unfinished (sync, piece_id, account, status, occurred_at, due_at)"
            " SELECT 's', %s || piece_id, account, status, occurred_at, c"
            " FROM (SELECT postalytics.due_clock() AS c) AS c, postalytics.events"
            " ORDER BY occurred_at",
            [f"{prefix}{i}-" if prefix else ""],
        )


def measure(workers, rounds):
    """Return the medians of the buffers and of the milliseconds."""
    admin.execute("CHECKPOINT")
    buffers = [worker.buffers() for worker in workers for _ in range(3)]
    took = [workers[i % len(workers)].fetch() for i in range(rounds * len(workers))]
    return statistics.median(buffers), statistics.median(took)


def report(name, cost, usual):
    ratios = [c / u for c, u in zip(cost, usual)]
    print(f"{name}\t{cost[0]:.0f}\t{cost[1]:.2f}\t{ratios[0]:.2f}\t{ratios[1]:.2f}", flush=True)


admin = connect()
admin.execute("TRUNCATE postalytics.deliveries_unfinished")
workers = [Worker() for _ in range(16)]
replay(admin, 2)
measure(workers, 2)
usual = measure(workers, 4)
report("16 workers, nothing else in the table", usual, usual)

# A backlog, for workers that have only seen an empty queue.
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
measure(workers, 2)
report("16 workers, a million other deliveries", measure(workers, 8), usual)
admin.execute("VACUUM ANALYZE")
report("16 workers, a million other deliveries, after ANALYZE", measure(workers, 8), usual)
worker = workers[0]
for other in workers[1:]:
    other.ack()
    other.db.close()
admin.execute("TRUNCATE postalytics.deliveries_unfinished")

# This snapshot keeps the dead rows of the deliveries that the worker finishes.
snapshot = psycopg.connect()
snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
snapshot.execute("SELECT")
worker.ids = []
replay(admin)
usual = measure([worker], 60)
report("one worker, an old snapshot held", usual, usual)
dead = 0
while dead < DEAD:
    rows = worker.db.execute("SELECT delivery_id FROM postalytics.fetch('s', 500, ack => %s::bigint[])", [worker.ids]).fetchall()
    worker.ids = [id for (id,) in rows]
    dead += len(rows)
    if not rows:
        replay(admin, 1, f"dead {dead} ")
while worker.ids:  # finish the remaining deliveries
    worker.fetch(500)
replay(admin)
report(f"one worker, {dead:,} dead rows", measure([worker], 60), usual)
print("with the dead rows\t%d" % admin.execute("SELECT pg_total_relation_size('postalytics.deliveries_unfinished')").fetchone()[0])
snapshot.rollback()
snapshot.close()
admin.execute("VACUUM postalytics.deliveries_unfinished")
admin.execute("SELECT FROM postalytics.maintain()")
print("after the snapshot has ended, VACUUM and maintain()\t%d" % admin.execute("SELECT pg_total_relation_size('postalytics.deliveries_unfinished')").fetchone()[0])
