"""Prints the notifications of a channel: listen.py CHANNEL.  Needs psycopg 3."""
import signal
import sys
import time

import psycopg
from psycopg import sql

signal.signal(signal.SIGINT, signal.SIG_DFL)
while True:
    try:
        with psycopg.connect("", autocommit=True) as db:
            db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(sys.argv[1])))
            print("listening", flush=True)  # a worker fetches here: earlier notifications are not sent again
            for notice in db.notifies():
                print(notice.channel, notice.payload, flush=True)  # anybody can send one, so do not trust the payload
    except psycopg.Error as error:
        print("connection lost:", error, file=sys.stderr)
        time.sleep(1)
