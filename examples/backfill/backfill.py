"""Copies the events of campaigns from the vendor's API into the database.

    API_KEY=… backfill.py CAMPAIGN … [--account ACCOUNT] [--follow]

The API returns a campaign's events in pages, newest first, so new events move the
others to later pages.  A pass reads from the first page until it reaches a page that
contains no new event and goes back to the newest event of the last finished pass.
The number of the next page is committed with the events of each page, in table
api_progress, so that an interrupted pass continues from there; the next pass reads the
events that have arrived meanwhile.  Once a day a pass reads all pages, because USPS
reports some events late.
"""
import argparse
import base64
import collections
import datetime
import email.utils
import http.client
import json
import math
import os
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import psycopg

API = os.environ.get("API", "https://api.postalytics.com/api/v1")
KEY = os.environ.get("API_KEY", "")
PAGE_SIZE = 100  # the maximum of the API
LIMITS = [(3, 1), (180, 60)]  # (requests, seconds)

parser = argparse.ArgumentParser(description="copy the events of campaigns from the vendor's API")
parser.add_argument("campaigns", nargs="+", metavar="CAMPAIGN", help="the id of a campaign's drop")
parser.add_argument("--account", default="")
parser.add_argument("--follow", action="store_true", help="keep looking for new events")
parser.add_argument("--every", type=float, default=300, help="seconds between two passes (300)")
parser.add_argument("--again", action="store_true", help="read all pages")
options = parser.parse_args()
if not KEY:
    sys.exit("API_KEY is not set")

# Times of the last requests.  The first ones stand for those of a previous run that
# may have ended just now.
request_times = collections.deque([time.monotonic()] * LIMITS[0][0], maxlen=max(requests for requests, _ in LIMITS))


def wait_for_turn():
    """Wait until another request is within all limits."""
    for requests, seconds in LIMITS:
        if len(request_times) >= requests:
            time.sleep(max(request_times[-requests] + seconds - time.monotonic(), 0))
    request_times.append(time.monotonic())


class Refused(Exception):
    """A campaign that cannot be read, which another attempt would not change."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: urllib would take the key along, to any host."""

    def redirect_request(self, request, body, code, message, headers, url):
        return None


opener = urllib.request.build_opener(NoRedirect)


def retry_after(error):
    """Return the seconds that Retry-After asks for, as a number or a date, or None if it is missing or wrong."""
    value = error.headers.get("Retry-After", "")
    try:
        seconds = float(value)
        return max(seconds, 0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max((date.astimezone() - datetime.datetime.now(datetime.timezone.utc)).total_seconds(), 0)
    except (TypeError, ValueError):
        return None


def get(campaign, page):
    """Return a page of events and the total number, which is None if the API omits it.

    Retries temporary errors, after the wait that the API asks for, up to an hour.
    """
    url = f"{API}/campaigns/{urllib.parse.quote(campaign, safe='')}/events?PageNumber={page}&PageSize={PAGE_SIZE}"
    headers = {"Authorization": "Basic " + base64.b64encode(KEY.encode() + b":").decode()}
    for attempt in range(8):
        wait = 2**attempt / 4
        wait_for_turn()
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as response:
                document = json.load(response)
            events = document if isinstance(document, list) else document.get("data")
            if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
                raise Refused(f"campaign {campaign}: the API did not return a list of events: {json.dumps(document)[:200]}")
            return events, document.get("totalCount") if isinstance(document, dict) else None
        except urllib.error.HTTPError as error:
            try:
                reason = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
            except (OSError, http.client.HTTPException):
                reason = f"HTTP {error.code}"
            if error.code < 400:
                raise Refused(f"campaign {campaign}: HTTP {error.code}: a redirect to {error.headers.get('Location')}, which is not followed")
            if error.code != 429 and error.code < 500:
                raise Refused(f"campaign {campaign}: {reason}")
            asked = retry_after(error)
            wait = wait if asked is None else asked
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        time.sleep(min(wait, 3600))
    raise OSError(f"campaign {campaign}, page {page}: the API does not answer: {reason}")


def date_of(event):
    try:
        date = datetime.datetime.fromisoformat(event["eventDate"])
        return date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)
    except (KeyError, TypeError, ValueError):
        return None


def show(page, total, new):
    if not sys.stderr.isatty():
        return
    done = min(page * PAGE_SIZE / total, 1) if total else 0
    bar = f"[{'#' * int(30 * done):.<30}] {100 * done:3.0f} %" if total else f"page {page}"
    print(f"\r{bar}  {new} new", end="", file=sys.stderr, flush=True)


def read_campaign(db, campaign):
    """Read a campaign's pages until the events are known.

    Returns the first and the last page read, and the totals of ingest.
    """
    key = [campaign, options.account]
    db.execute("INSERT INTO api_progress (campaign, account) VALUES (%s, %s) ON CONFLICT DO NOTHING", key)
    known, newest, page, reads_all = db.execute(
        """SELECT known, newest, page,
                  CASE WHEN page IS NULL THEN known IS NULL OR all_read_at < now() - interval '1 day' ELSE reads_all END
           FROM api_progress WHERE (campaign, account) = (%s, %s)""", key).fetchone()
    if options.again:
        page, reads_all = None, True
    page = first = page or 1
    totals = [0, 0, 0]
    while True:
        events, total = get(campaign, page)
        for event in events:
            if "campaignId" not in event:
                event.setdefault("dropId", campaign)
        dates = [date for date in map(date_of, events) if date]
        if page == 1:
            newest = max(dates, default=None)
        with db.transaction():
            result = db.execute("SELECT * FROM postalytics.ingest(%s::json, NULLIF(%s, ''))", [json.dumps(events), options.account]).fetchone()
            is_known = result[0] == 0 and known is not None and len(dates) > 0 and min(dates) <= known
            ends = len(events) < PAGE_SIZE or (is_known and not reads_all)
            if ends:
                db.execute(
                    """UPDATE api_progress SET known = greatest(known, %s), newest = NULL, page = NULL,
                              all_read_at = CASE WHEN %s THEN now() ELSE all_read_at END
                       WHERE (campaign, account) = (%s, %s)""", [newest, reads_all, *key])
            else:
                db.execute("UPDATE api_progress SET newest = %s, page = %s, reads_all = %s WHERE (campaign, account) = (%s, %s)",
                           [newest, page + 1, reads_all, *key])
        totals = [a + b for a, b in zip(totals, result)]
        if reads_all:
            show(page, total, totals[0])
        if ends:
            return first, page, totals
        page += 1


def read_all_campaigns():
    rejected = 0
    with psycopg.connect("", autocommit=True) as db:
        db.execute("""CREATE TABLE IF NOT EXISTS api_progress (
            campaign text, account text, known timestamptz, newest timestamptz, page integer, reads_all boolean, all_read_at timestamptz,
            PRIMARY KEY (campaign, account))""")
        for campaign in options.campaigns:
            try:
                first, last, (new, old, bad) = read_campaign(db, campaign)
            except Refused as error:
                if not options.follow:
                    raise
                print(error, file=sys.stderr)  # the other campaigns are read
                continue
            rejected += bad
            if new or bad or not options.follow:
                print(f"campaign {campaign}, pages {first} to {last}: {new} new events, {old} already stored, {bad} rejected", flush=True)
    return rejected


for stop in signal.SIGINT, signal.SIGTERM:
    signal.signal(stop, lambda *_: sys.exit(0))  # pages that are not committed are read again
while options.follow:
    try:
        read_all_campaigns()
    except (OSError, psycopg.Error) as error:
        print(f"retrying: {error}", file=sys.stderr)
    options.again = False
    time.sleep(options.every)
try:
    sys.exit(1 if read_all_campaigns() else 0)
except Refused as error:
    sys.exit(str(error))
except (OSError, psycopg.Error) as error:
    sys.exit(f"{error}; the events read so far are stored; run the command again to continue")
