"""Stands in for the vendor's API: api.py PORT EVENTS [PORT].

Returns the newest events first.  To test its clients, it adds seven events after
each of the first 25 pages, repeats every fiftieth event, answers some requests with
503 and one with 429 and Retry-After, refuses a wrong key, and counts the requests
that exceed 3 a second or 180 a minute.  POST /events adds a new event, and
POST /events?late adds an old one.
"""
import email.utils
import http.server
import json
import sys
import threading
import time
import urllib.parse

port, count = int(sys.argv[1]), int(sys.argv[2])  # and the port of a host to which it redirects
NAMES = ["Mail Piece Created", "Printed", "Mailed", "In Transit", "In Local Area", "Processed for Delivery", "pURL Opened"]


def event(i):
    piece, step = divmod(i, len(NAMES))
    minute = i // 3
    return {"id": 700000 + i, "campaignId": 77120, "contactId": 9900000 + piece, "event": NAMES[step],
            "eventDate": f"2026-{8 + minute // 40320:02}-{1 + minute // 1440 % 28:02}T{minute // 60 % 24:02}:{minute % 60:02}:{i % 3:02}Z", "metadata": ""}


events = []  # oldest first
made = 0


def insert(number):
    global made
    for _ in range(number):
        events.append(event(made))
        made += 1
        if made % 50 == 0:
            events.append(event(made - 20))


insert(count)
pages = asked = too_fast = 0
times = []
lock = threading.Lock()


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, code, document, **headers):
        body = json.dumps(document).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        with lock:
            if "late" in self.path:
                events.insert(0, {**event(1), "contactId": 1, "eventDate": "2026-07-01T00:00:00Z"})
            else:
                insert(1)
            self.answer(200, {})

    def do_GET(self):
        global asked, pages, too_fast
        url = urllib.parse.urlparse(self.path)
        query = {name: int(value[0]) for name, value in urllib.parse.parse_qs(url.query).items()}
        with lock:
            if url.path == "/":
                return self.answer(200, {"made": made, "too_fast": too_fast})
            asked += 1
            now = time.monotonic()
            times.append(now)
            # Count over slightly less than the period, because requests take time to arrive.
            too_fast += sum(now - 0.95 < each for each in times) > 3 or sum(now - 59.5 < each for each in times) > 180
            if self.headers.get("Authorization") != "Basic a2V5Og==":
                self.answer(401, {"error": "wrong key"})
            elif url.path == "/campaigns/redirected/events":
                self.answer(307, {}, Location=f"http://127.0.0.1:{sys.argv[3]}/stolen")
            elif url.path == "/campaigns/strange/events":
                self.answer(200, {"data": "none"})
            elif url.path != "/campaigns/77120/events":
                self.answer(404, {"error": "no such campaign"})
            elif asked == 12:
                self.answer(429, {"error": "slow down"}, Retry_After="0.2")
            elif asked == 13:
                self.answer(429, {"error": "slow down"}, Retry_After=email.utils.formatdate(time.time() + 2, usegmt=True))
            elif asked == 14:
                self.answer(503, {"error": "slow down"}, Retry_After="soon")
            elif asked == 15:
                self.answer(503, {"error": "slow down"}, Retry_After="nan")
            elif asked % 17 == 0:
                self.answer(503, {"error": "in maintenance"})
            else:
                start = (query["PageNumber"] - 1) * query["PageSize"]
                self.answer(200, {"data": events[::-1][start:start + query["PageSize"]], "pageNumber": query["PageNumber"],
                                  "pageSize": query["PageSize"], "totalCount": len(events)})
                pages += 1
                if pages <= 25:
                    insert(7)


http.server.ThreadingHTTPServer(("127.0.0.1", port), Api).serve_forever()
