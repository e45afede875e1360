"""Brings a campaign's past events from the vendor's API into the database.

    API=https://… API_KEY=… backfill.py CAMPAIGN [--account ACCOUNT]

Page by page, 100 events each.  Where it was stopped it goes on: the page's
number is committed with its events, in table backfill.
"""
import argparse
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

import psycopg

PAGE_SIZE = 100

parser = argparse.ArgumentParser(description="bring a campaign's past events from the vendor's API")
parser.add_argument("campaign")
parser.add_argument("--account")
parser.add_argument("--again", action="store_true", help="from the first page")
options = parser.parse_args()


def get(page):
    """A page of events as text, and whether it was the last; errors that pass are waited for."""
    url = f"{os.environ['API']}/campaigns/{options.campaign}/events?pageNumber={page}&pageSize={PAGE_SIZE}"
    key = base64.b64encode(os.environ.get("API_KEY", "").encode() + b":").decode()
    for attempt in range(8):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Basic " + key}), timeout=30) as response:
                text = response.read().decode()
                return text, json.loads(text)
        except urllib.error.HTTPError as error:
            if error.code != 429 and error.code < 500:
                sys.exit(f"page {page}: HTTP {error.code}: {error.read(200).decode(errors='replace')}")
            wait = float(error.headers.get("Retry-After") or 2 ** attempt / 4)
        except OSError as error:
            wait = 2 ** attempt / 4
        time.sleep(min(wait, 60))
    sys.exit(f"page {page}: the API does not answer; what came is stored, call again to go on")


def progress(page, total, totals):
    if not sys.stderr.isatty():
        return
    done = page * PAGE_SIZE
    width = int(30 * min(done / total, 1)) if total else 0
    bar = f"[{'#' * width}{'.' * (30 - width)}] {min(100 * done / total, 100):3.0f} %" if total else f"page {page}"
    print(f"\r{bar}  {totals['inserted']} new", end="", file=sys.stderr, flush=True)


totals = {"inserted": 0, "duplicates": 0, "rejected": 0}
with psycopg.connect("", autocommit=True) as db:
    db.execute("CREATE TABLE IF NOT EXISTS backfill (campaign text PRIMARY KEY, page integer NOT NULL)")
    row = None if options.again else db.execute("SELECT page FROM backfill WHERE campaign = %s", [options.campaign]).fetchone()
    page = first = row[0] + 1 if row else 1
    while True:
        text, document = get(page)
        if not document["data"]:
            break
        with db.transaction():
            result = db.execute("SELECT * FROM postalytics.ingest(%s::json, %s)", [text, options.account]).fetchone()
            db.execute("INSERT INTO backfill VALUES (%s, %s) ON CONFLICT (campaign) DO UPDATE SET page = excluded.page", [options.campaign, page])
        for name, count in zip(totals, result):
            totals[name] += count
        progress(page, document.get("totalCount"), totals)
        if len(document["data"]) < PAGE_SIZE:
            break  # it may grow: the next call looks at it again
        page += 1
    db.execute("UPDATE backfill SET page = page - 1 WHERE campaign = %s AND page = %s", [options.campaign, page])
if sys.stderr.isatty():
    print(file=sys.stderr)
print(f"pages {first} to {page}: {totals['inserted']} new events, {totals['duplicates']} that were there, {totals['rejected']} rejected")
sys.exit(1 if totals["rejected"] else 0)
