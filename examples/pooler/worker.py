"""A worker behind a pooler in transaction mode: worker.py SYNC.

LISTEN does not work there, so fetch waits instead.  The session may change between
fetch and ack, so the attempts are passed to ack.  DATABASE is the connection string
of the pooler.  On SIGTERM it finishes the current delivery and gives back the others.
"""
import os
import signal
import sys
import time

import psycopg

sync = sys.argv[1]
stopping = False
waiting = None  # the connection whose fetch waits


def stop(signum, frame):
    global stopping
    stopping = True
    if waiting:
        waiting.cancel()


def work(db):
    global waiting
    while not stopping:
        waiting = db
        rows = db.execute("SELECT delivery_id, attempt, piece_id, label FROM postalytics.fetch(%s, max_wait => '20 seconds')", [sync]).fetchall()
        waiting = None
        for delivery_id, attempt, piece, label in rows:
            key = [sync, delivery_id, attempt]
            if stopping:
                db.execute("SELECT postalytics.nack(%s, ARRAY[%s::bigint], 'worker stopped', retry_in => '0', attempts => ARRAY[%s::integer])", key)
                continue
            print(piece, label, flush=True)  # update the CRM here
            db.execute("SELECT postalytics.ack(%s, ARRAY[%s::bigint], ARRAY[%s::integer])", key)


for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, stop)
while not stopping:
    try:
        with psycopg.connect(os.environ["DATABASE"], autocommit=True, prepare_threshold=None, connect_timeout=10) as db:
            work(db)
    except psycopg.Error as error:
        waiting = None
        if not stopping:
            print("retrying:", error, file=sys.stderr)
            time.sleep(1)
