"""A worker behind a pooler in transaction mode: worker.py SYNC.

LISTEN does not work there, so fetch waits instead.  The session may change between
fetch and ack, so the attempts are passed to ack.  DATABASE is the connection string
of the pooler.
"""
import os
import sys

import psycopg

sync = sys.argv[1]
with psycopg.connect(os.environ["DATABASE"], autocommit=True, prepare_threshold=None) as db:
    while True:
        rows = db.execute("SELECT delivery_id, attempt, piece_id, label FROM postalytics.fetch(%s, max_wait => '20 seconds')", [sync]).fetchall()
        for delivery_id, attempt, piece, label in rows:
            print(piece, label, flush=True)  # update the CRM here
            db.execute("SELECT postalytics.ack(%s, ARRAY[%s::bigint], ARRAY[%s::integer])", [sync, delivery_id, attempt])
