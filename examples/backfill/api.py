"""Stands in for the vendor's API: api.py PORT EVENTS.

Repeats every fiftieth event on the next page, answers 503 now and then and 429
with Retry-After once, and refuses a wrong key.
"""
import http.server
import json
import sys
import urllib.parse

port, count = int(sys.argv[1]), int(sys.argv[2])
NAMES = ["Mail Piece Created", "Printed", "Mailed", "In Transit", "In Local Area", "Processed for Delivery", "pURL Opened"]


def event(i):
    piece, step = divmod(i, len(NAMES))
    return {"id": 700000 + i, "campaignId": 77120, "contactId": 9900000 + piece, "event": NAMES[step],
            "eventDate": f"2026-{8 + step // 4:02}-{1 + piece % 27:02}T{step:02}:{piece // 27 % 60:02}:{piece // 1620 % 60:02}Z", "metadata": ""}


events = []
for i in range(count):
    events.append(event(i))
    if i % 50 == 49:
        events.append(event(i - 20))
asked = 0


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

    def do_GET(self):
        global asked
        asked += 1
        url = urllib.parse.urlparse(self.path)
        query = {name: int(value[0]) for name, value in urllib.parse.parse_qs(url.query).items()}
        if self.headers.get("Authorization") != "Basic a2V5Og==":
            self.answer(401, {"error": "wrong key"})
        elif url.path != "/campaigns/77120/events":
            self.answer(404, {"error": "no such campaign"})
        elif asked == 30:
            self.answer(429, {"error": "slow down"}, Retry_After="0.2")
        elif asked % 97 == 0:
            self.answer(503, {"error": "in maintenance"})
        else:
            start = (query["pageNumber"] - 1) * query["pageSize"]
            self.answer(200, {"data": events[start:start + query["pageSize"]], "pageNumber": query["pageNumber"],
                              "pageSize": query["pageSize"], "totalCount": len(events)})


http.server.ThreadingHTTPServer(("127.0.0.1", port), Api).serve_forever()
