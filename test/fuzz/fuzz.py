#!/usr/bin/python3
"""fuzz.py: pass mutated events to ingest, inbox, field_names and status_names.

    fuzz.py [--events N] [--seed N] [SAMPLE.json ...]

Events are mutated in their structure and in their bytes.  The connection uses libpq's
environment variables.  Every call must return a result or fail with an error about its
JSON, the tables must hold what the calls counted, and the memory of the session must not
grow.  The same seed makes the same calls.
"""
import argparse
import json
import random
import sys

import psycopg

parser = argparse.ArgumentParser()
parser.add_argument("--events", type=int, default=1000000)
parser.add_argument("--seed", type=int, default=20261124)
parser.add_argument("samples", nargs="+")
options = parser.parse_args()
rng = random.Random(options.seed)

# SQLSTATEs of errors about text that is not JSON, or that the server cannot store.
JSON_ERRORS = {"22P02", "22P05", "22021", "54001", "22001", "22032"}


class Members(list):
    """An object as a list of pairs, so that a name can occur twice."""


def load(path):
    document = json.load(open(path, encoding="utf-8"))
    document = document.get("data", document) if isinstance(document, dict) else document
    return document if isinstance(document, list) else [document]


base = [event for path in options.samples for event in load(path)]

SCALARS = [
    None, True, False, 0, -1, 1, 2, 11, 12, 1e308, 10**400, -0.0, 12345678901234567890, 3.7, "", " ", "\t", "\u0000", "\ud83d",
    "\udc00x", "\U0001f600", "\u00e9", "\u2603", 'a"b', "\\", "2026-10-06", "0000-00-00", "2026-02-30T25:61:61Z", "1/1/1",
    "10/06/2026 2:40:00 PM", "2026-10-06T14:21:09.9999999+15:59", "now", "infinity", "4", "11", "In Transit", "p-u_r L o p e n e d",
    "Teleported", "Error", " none", "20261006T142109,5Z", "2026-10-06T24:00:00 UTC", "\x7f", '{"a": 1}', "77120/9921734", "US", "Canada"]
SIZES = [1, 63, 254, 255, 256, 1000, 1001, 8000, 8001, 65536, 65537]
NAMES = ["data", "events", "items", "to", "meta", "x", "event", "mailId", "eventType", "eventDate", "fields", "contactId",
         "campaignId", "dropId", "dataId", "city", "errorCode", "", " ", "\ud800", "\u0000", "account", "status", "metadata", "M_a-i l.ID"]


class Number(str):
    """The text of a number."""


def number():
    digits = lambda most: "".join(rng.choice("0123456789") for _ in range(rng.randint(1, most)))
    integer = rng.choice(["0", rng.choice("123456789") + digits(rng.choice([1, 3, 19, 200]))])
    fraction = "." + rng.choice(["0", "00", digits(3), digits(120)]) if rng.random() < 0.4 else ""
    exponent = rng.choice("eE") + rng.choice(["", "+", "-"]) + rng.choice(
        ["0", "1", "0001", "999", "1001", "9223372036854775808", "18446744073709551616", "0" * 50 + "2", digits(30)]) if rng.random() < 0.5 else ""
    return Number(rng.choice(["", "-"]) + integer + fraction + exponent)


def scalar():
    if rng.random() < 0.15:
        return number()
    return "x" * rng.choice(SIZES) if rng.random() < 0.1 else rng.choice(SCALARS)


def deep():
    depth = rng.choice([3, 30, 70, 300])
    value = scalar()
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else Members([(rng.choice(NAMES), value)])
    return value


def mutate(value, depth=0):
    chance = rng.random()
    if chance < 0.04:
        return scalar()
    if chance < 0.045:
        return deep()
    if chance < 0.06 and depth < 6:
        return [mutate(value, depth + 1)]
    if chance < 0.08 and depth < 6:
        return Members([(rng.choice(NAMES), value)])
    if isinstance(value, dict):
        members = Members()
        for name, member in value.items():
            chance = rng.random()
            if chance < 0.03:
                continue
            if chance < 0.07:
                name = rng.choice([name.upper(), name.lower(), "_".join(name), name + "\u0000", name * 20, rng.choice(NAMES)])
            members.append((name, mutate(member, depth + 1)))
            if rng.random() < 0.03:
                members.append((name, scalar()))
        if rng.random() < 0.1:
            rng.shuffle(members)
        return members
    if isinstance(value, list):
        return [mutate(element, depth + 1) for element in value]
    if isinstance(value, str) and not isinstance(value, Number) and value and rng.random() < 0.1:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["", "\u0000", "\u00e9", " ", "-", "\u2603", value]) + value[at:]
    return value


def text_of(value):
    if isinstance(value, Members):
        return "{" + ",".join(text_of(name) + ":" + text_of(member) for name, member in value) + "}"
    if isinstance(value, dict):
        return text_of(Members(value.items()))
    if isinstance(value, list):
        return "[" + ",".join(text_of(element) for element in value) + "]"
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=rng.random() < 0.7 or not value.isprintable())
    return "1e999" if value == float("inf") else json.dumps(value)


def event():
    """Return a mutated sample, often with another piece id."""
    sample = rng.choice(base)
    if isinstance(sample, dict) and rng.random() < 0.8:
        sample = {name: rng.randrange(100000) if name in ("mailId", "Mail Id", "contactId") else value
                  for name, value in sample.items()}
    return mutate(sample)


def may_wrap(value):
    """True if the object has a member whose name can be that of a list of events."""
    names = (name for name, _ in value) if isinstance(value, Members) else value if isinstance(value, dict) else ()
    return any("".join(c for c in name if c not in " _-.\t\n\v\f\r").lower() in ("data", "events", "items") for name in names)


def document():
    """Return a payload, the least number of its events, and true if it has no more.

    A value that may be a wrapper is not counted, as it can hold any number of events."""
    size = rng.choice([0, 1, 1, 2, 5, 30, 100, 400])
    events = [event() for _ in range(size)]
    least = sum(not may_wrap(each) for each in events)
    exact = least == size
    if size == 1 and rng.random() < 0.5:
        text = text_of(events[0])
        if isinstance(events[0], list) and not isinstance(events[0], Members):
            least, exact = 0, False
    else:
        text = text_of(events)
    chance = rng.random()
    if chance < 0.05:
        text = '{"data": %s, "total": 7}' % text
        if not text.startswith('{"data": ['):
            least, exact = 0, False
    elif chance < 0.07:
        text = "[" * 3 + text + "]" * 3
        least, exact = 1, True
    return text, (least, exact)


def damage(text):
    """Return the text with a few bytes removed, inserted or replaced."""
    damaged = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.randrange(len(damaged) + 1)
        damaged[at:at + rng.choice([0, 1, 1, 9])] = rng.choice([b"", b"\\", b'"', b"{", b"]", b"\xff", b"\xc3", b"\\u00", b",", b"e9", b"\x01"])
    return bytes(damaged)


def worker():
    """Return the background worker's PID."""
    return connection.execute("SELECT pid FROM postalytics.worker_status()").fetchone()[0]


def resident(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


connection = psycopg.connect(autocommit=True)
if connection.info.server_version >= 150000:
    connection.execute("SELECT postalytics.configure('latest', '36500d'), postalytics.configure('max_months', '100000'), postalytics.configure('max_new_months', '100000')")
connection.execute("SET client_min_messages = error")
connection.execute("CREATE TEMP TABLE taught (piece_id text, account text)")
TABLES = """SELECT (SELECT count(*) FROM postalytics.events) + (SELECT count(*) FROM postalytics.production_errors),
                   (SELECT count(*) FROM postalytics.rejects)"""
before = connection.execute(TABLES).fetchone()
totals = {"calls": 0, "events": 0, "known": 0, "inserted": 0, "duplicates": 0, "rejected": 0, "errors": 0}
early = None


def count(row, events):
    for name, number in zip(("inserted", "duplicates", "rejected"), row):
        totals[name] += number
    totals["events"] += events


def call(payload, account=None, holds=(0, False)):
    row = connection.execute("SELECT * FROM postalytics.ingest(%s::json, %s)", (payload, account)).fetchone()
    least, exact = holds
    if sum(row) < least or (exact and sum(row) != least):
        sys.exit("seed %d, call %d: %d events and not %d\n%.2000s" % (options.seed, totals["calls"], sum(row), least, payload))
    totals["known"] += least
    count(row, sum(row))


def call_raw(payload):
    """Ingest bytes unchanged, whether or not they are valid in the encoding."""
    row = connection.execute(b"SELECT * FROM postalytics.ingest('" + payload.replace(b"'", b"''") + b"'::json)").fetchone()
    count(row, sum(row))


def call_taught(payload):
    """Ingest with a random field name and status name.

    Both are deleted after the call, so a rebuild reads the payloads differently.  The
    pieces are therefore recorded in the table taught."""
    newest = connection.execute("SELECT txid_current()").fetchone()
    path = rng.choice(NAMES[3:])
    field = rng.choice(["mail_id", "event_type", "event_date", "fields", "contact_id", "url", "events", "fields.x", "fields.*", "campaign_id", "drop_id"])
    spelling, status = rng.choice(["Teleported", "4", "In Transit", "x", "\u00e9"]), rng.choice(["Mailed", "Error", "ignore"])
    for table, row in ("field_names", (path + "*" if field == "fields.*" else path, field)), ("status_names", (spelling, status)):
        try:
            connection.execute("INSERT INTO postalytics.%s VALUES (%%s, %%s)" % table, row)
        except (psycopg.errors.CheckViolation, psycopg.DataError, UnicodeEncodeError):
            pass
    try:
        call(payload)
    finally:
        connection.execute("DELETE FROM postalytics.field_names")
        connection.execute("DELETE FROM postalytics.status_names")
        connection.execute("INSERT INTO taught SELECT piece_id, account FROM postalytics.events WHERE xmin::text::bigint >= %s", newest)


def insert_into_inbox(text):
    """Ingest through the view, and count what the statement adds to the tables."""
    old = connection.execute(TABLES).fetchone()
    connection.execute("INSERT INTO postalytics.inbox (payload) VALUES (%s::json)", (text,))
    new = connection.execute(TABLES).fetchone()
    count((new[0] - old[0], 0, new[1] - old[1]), 1)


while totals["events"] < options.events:
    payload, holds = document()
    totals["calls"] += 1
    try:
        chance = rng.random()
        if chance < 0.1:
            call_raw(damage(payload)) if rng.random() < 0.5 else call(damage(payload).decode("latin-1"))
        elif chance < 0.11:
            call_taught(payload)
        elif chance < 0.115:
            insert_into_inbox(payload)
        else:
            call(payload, rng.choice([None, None, "", "a", "x" * 256, "\u2603"]), holds)
    except (psycopg.Error, UnicodeEncodeError) as error:
        state = getattr(error, "sqlstate", None)
        totals["errors"] += 1
        if connection.closed or (state not in JSON_ERRORS and not isinstance(error, (UnicodeEncodeError, psycopg.DataError))):
            print("seed %d, call %d: %s %s\n%.2000s" % (options.seed, totals["calls"], state, error, payload))
            sys.exit(1)
    if early is None and totals["events"] > options.events / 5:
        early = resident(connection.info.backend_pid), resident(worker())

late = resident(connection.info.backend_pid), resident(worker())
stored = connection.execute(TABLES).fetchone()
wrong = connection.execute("""
    SELECT count(*)
    FROM postalytics.pieces AS p
    FULL JOIN (SELECT piece_id, account, postalytics.current_status(status, occurred_at) AS status
               FROM postalytics.events GROUP BY 1, 2) AS e USING (piece_id, account)
    WHERE p.status IS DISTINCT FROM e.status""").fetchone()[0]

# Two ways to find the person whom a payload is about must agree for every payload, and
# pieces must stay the same when they are derived again.
told = connection.execute("""
    SELECT (SELECT count(*)
            FROM postalytics.rejects AS r
            WHERE postalytics.is_about(r.payload, r.account, NULL, '{4,77120/9921734}', '{2}', '{ann@example.com}')
                  <> (SELECT bool_or(e.is_about) FROM postalytics.rejected_events(r.payload, r.account, NULL, '{4,77120/9921734}', '{2}', '{ann@example.com}') AS e)),
           (SELECT count(*)
            FROM postalytics.events AS e, postalytics.payload_fields(e.payload) AS f
            WHERE postalytics.names_recipient(e.payload, f.contact_id, f.email) <> (f.contact_id IS NOT NULL OR f.email IS NOT NULL)
              AND postalytics.trimmed(f.email) = f.email)""").fetchone()
connection.execute("CREATE TEMP TABLE pieces AS SELECT * FROM postalytics.pieces")
connection.execute("SELECT postalytics.rebuild_pieces(array_agg(piece_id), account) FROM pieces GROUP BY account")
rebuilt = connection.execute("""
    SELECT count(*)
    FROM pieces AS old
    FULL JOIN postalytics.pieces AS new USING (piece_id, account)
    WHERE old::text IS DISTINCT FROM new::text
      AND NOT EXISTS (SELECT FROM taught AS t WHERE (t.piece_id, t.account) = (piece_id, account))""").fetchone()[0]
print(totals, "memory, kB: session %d early, %d late; worker %d early, %d late" % (early[0], late[0], early[1], late[1]))
faults = []
if stored[0] - before[0] != totals["inserted"]:
    faults.append("%d events are there" % (stored[0] - before[0]))
if stored[1] - before[1] != totals["rejected"]:
    faults.append("%d rejects are there" % (stored[1] - before[1]))
if wrong:
    faults.append("%d pieces are not what their events make them" % wrong)
if told != (0, 0):
    faults.append("%d rejects and %d events are told differently in two ways" % told)
if rebuilt:
    faults.append("%d pieces are not the same when they are derived again" % rebuilt)
if any(after > 1.1 * before + 4000 for before, after in zip(early, late)):
    faults.append("memory grows")
if 0 in (totals["inserted"], totals["rejected"], totals["duplicates"]) or totals["known"] < totals["events"] / 2:
    faults.append("too little was tried")
print("\n".join(faults) or "every event is accounted for")
sys.exit(bool(faults))
