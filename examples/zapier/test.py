"""Tests the statements that Zapier sends, and that polling misses no event.  Prints TAP."""
import os
import threading

import psycopg

server = {"host": os.environ["PGHOST"], "port": os.environ["PGPORT"], "dbname": os.environ["PGDATABASE"]}


def connect(role, **options):
    return psycopg.connect(user=role, password=role, **server, **options)


incoming = connect("zapier_in", autocommit=True)
outgoing = connect("zapier_out", autocommit=True)
n = 0


def check(good, title, seen=None):
    global n
    n += 1
    print("ok" if good else "not ok", n, "-", title, "" if good else seen)


def refused(connection, command):
    try:
        connection.execute(command)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def tables(connection):
    return connection.execute("SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
                              " AND table_name NOT IN ('statuses') ORDER BY 1, 2").fetchall()


def columns(connection, schema, table):
    return [row[0] for row in connection.execute("SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
                                                 " ORDER BY ordinal_position", [schema, table])]


# What Zapier's screens do: list tables, list columns, insert a row.
check(tables(incoming) == [("postalytics", "inbox")], "Create Row offers the inbox alone", tables(incoming))
check(columns(incoming, "postalytics", "inbox")[:3] == ["mail_id", "event_date", "event_type"], "and its columns", columns(incoming, "postalytics", "inbox"))
row = {"mail_id": "48213377", "event_date": "10/08/2026 11:03:27 AM", "event_type": "Processed For Delivery", "campaign_id": "77120",
       "campaign_name": "Spring recall – wave 2", "first_name": "Dolores", "email": "dolores@harbourvale.example", "country": "US"}
incoming.execute("INSERT INTO postalytics.inbox (%s) VALUES (%s)" % (", ".join('"%s"' % name for name in row), ", ".join(["%s"] * len(row))), list(row.values()))
check(all(refused(incoming, command) for command in (
    "SELECT * FROM postalytics.inbox", "SELECT * FROM postalytics.pieces", "SELECT * FROM zapier.mail_events", "DELETE FROM postalytics.events",
    "SELECT postalytics.fetch('zapier')")), "it can do nothing else")

check(tables(outgoing) == [("zapier", "mail_events")], "New Row offers the view alone", tables(outgoing))
check(columns(outgoing, "zapier", "mail_events")[:4] == ["id", "delivered_at", "piece_id", "status"], "and its columns", columns(outgoing, "zapier", "mail_events"))
POLL = 'SELECT * FROM "zapier"."mail_events" ORDER BY "id" DESC LIMIT 100'
found = outgoing.execute(POLL).fetchall()
check([row[2:4] for row in found] == [("48213377", "Processed for Delivery")], "the test finds a row", found)
check(all(refused(outgoing, command) for command in (
    "SELECT * FROM zapier.delivered", "SELECT * FROM postalytics.pieces", "INSERT INTO postalytics.inbox (mail_id) VALUES ('1')")), "it can do nothing else")


# A poller that remembers only the last id.
class Poller:
    def __init__(self):
        self.last, self.seen = 0, []

    def poll(self):
        rows = outgoing.execute('SELECT "id", "piece_id" FROM "zapier"."mail_events" WHERE "id" > %s ORDER BY "id"', [self.last]).fetchall()
        if rows:
            self.last = rows[-1][0]
        self.seen += [piece for _, piece in rows]


def event(connection, piece):
    connection.execute("INSERT INTO postalytics.inbox (mail_id, event_date, event_type) VALUES (%s, '2026-10-06', '4')", [piece])


poller = Poller()
held = connect("zapier_in")
event(held, "held open")  # inserted first, committed last
for i in range(5):
    event(incoming, f"after {i}")
    poller.poll()
check(poller.seen == ["48213377"] + [f"after {i}" for i in range(5)], "what is committed is delivered while an older transaction is open", poller.seen)
held.commit()
poller.poll()
poller.poll()
check(poller.seen.count("held open") == 1 and len(poller.seen) == 7, "and what that brings is delivered when it ends", poller.seen)


def bring(name):
    with connect("zapier_in") as connection:
        for i in range(100):
            event(connection, f"{name} {i}")
            if i % 7 == 0:
                connection.commit()


bringers = [threading.Thread(target=bring, args=(f"many {i}",)) for i in range(8)]
for bringer in bringers:
    bringer.start()
while any(bringer.is_alive() for bringer in bringers):
    poller.poll()
poller.poll()
check(len(poller.seen) == 807 and len(set(poller.seen)) == 807, "nothing is missed and nothing delivered twice under load", len(poller.seen))

# A client's own roles reach only that client's account.
client_in, client_out = connect("zapier_5510_in", autocommit=True), connect("zapier_5510_out", autocommit=True)
event(client_in, "of 5510")
client_rows = client_out.execute("SELECT piece_id, account FROM zapier_5510.mail_events").fetchall()
check(client_rows == [("of 5510", "5510")], "a client's Zaps see the account's events", client_rows)
check(all(refused(connection, command) for connection, command in (
    (client_in, "INSERT INTO postalytics.inbox (mail_id, event_date, event_type, account) VALUES ('1', '2026-10-06', '4', '5511')"),
    (client_out, "SELECT * FROM zapier.mail_events"), (client_out, "SELECT postalytics.fetch('zapier_5510')"),
    (client_out, "SELECT * FROM zapier_5510.delivered"))), "and they reach no other account")

# The function runs as a role that is no superuser and can do nothing but fetch from the sync.
with psycopg.connect(autocommit=True) as owner:
    powers = owner.execute("""SELECT r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolcanlogin, b.privileges
                              FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner
                              CROSS JOIN LATERAL (SELECT array_agg(privilege || ' ' || sync) AS privileges FROM postalytics.bindings WHERE role = r.oid) AS b
                              WHERE p.oid IN ('zapier.poll'::regproc, 'zapier_5510.poll'::regproc) ORDER BY 2""").fetchall()
check(powers == [(False, ["sync zapier"]), (False, ["sync zapier_5510"])], "poll runs as a role that can only fetch", powers)
print(f"1..{n}")
