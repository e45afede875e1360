"""Prints the notifications of a channel: listen.py CHANNEL.  Needs psycopg 3."""
import json
import sys
import time

import psycopg
from psycopg import sql

while True:
    try:
        with psycopg.connect("", autocommit=True) as db:
            db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(sys.argv[1])))
            print("listening", flush=True)  # a worker fetches here: earlier notifications are not sent again
            for notice in db.notifies():
                payload = json.loads(notice.payload)
                print(notice.channel, payload["count"], [event["label"] for event in payload["events"]], flush=True)
    except psycopg.OperationalError as error:
        print("connection lost:", error, file=sys.stderr)
        time.sleep(1)
