"""Passes each delivery of a sync to a command: worker.py SYNC COMMAND...  Needs psycopg 3."""
import select
import signal
import subprocess
import sys
import time

import psycopg
from psycopg import sql

sync, command = sys.argv[1], sys.argv[2:]
delivered = []  # id and attempt of deliveries that are not acknowledged yet
stopping = False


def stop(signum, frame):
    global stopping
    stopping = True


def acknowledge(db):
    if delivered:
        db.execute("SELECT postalytics.ack(%s, %s::bigint[], %s::int[])", [sync, *map(list, zip(*delivered))])
        delivered.clear()


def deliver(db, rows):
    for n, (id, attempt, payload) in enumerate(rows):
        if stopping:  # give back the deliveries that are not started
            db.execute("SELECT postalytics.nack(%s, %s::bigint[], 'worker stopped', retry_in => '0')", [sync, [row[0] for row in rows[n:]]])
            return
        done = subprocess.run(command, input=payload, capture_output=True, text=True)
        if done.returncode == 0:
            delivered.append((id, attempt))
        else:
            db.execute("SELECT postalytics.nack(%s, %s::bigint[], %s)", [sync, [id], done.stderr or "failed"])


def work(db):
    db.execute(sql.SQL("LISTEN {}").format(sql.Identifier("postalytics_" + sync)))
    while not stopping:
        acknowledge(db)  # also what was delivered before the connection was lost
        rows = db.execute("SELECT delivery_id, attempt, payload::text FROM postalytics.fetch(%s, 10)", [sync]).fetchall()
        deliver(db, rows)
        if not rows:
            due, = db.execute("SELECT COALESCE(extract(epoch FROM postalytics.next_due(%s) - now()), 60)::float", [sync]).fetchone()
            until = time.time() + min(max(due, 0.1), 60)  # fetch at least once a minute
            while not stopping and time.time() < until and not select.select([db], [], [], min(max(until - time.time(), 0), 0.5))[0]:
                pass
    acknowledge(db)


for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, stop)
while not stopping:
    try:
        with psycopg.connect("", autocommit=True, connect_timeout=10) as db:
            work(db)
    except psycopg.Error as error:
        print("retrying:", error, file=sys.stderr)
        time.sleep(1)
