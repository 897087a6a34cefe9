"""Receives webhooks signed as Standard Webhooks says; needs nothing but Python's standard library.

    SECRET=whsec_... [PORT=8092] python3 receiver.py
"""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds
seen = set()  # in production: a table with the ids of the last days
lock = threading.Lock()  # requests are answered on several threads


def is_genuine(headers, body):
    event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    # The signature is over the bytes as they came: verify before parsing.
    digest = hmac.new(KEY, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    # While a secret is being replaced there is a signature for each, separated by spaces.
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(signature.encode(), expected.encode()) for signature in given)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        genuine = is_genuine(self.headers, body)
        self.send_response(204 if genuine else 401)
        self.send_header("content-length", "0")
        self.end_headers()
        if not genuine:
            print("refused: the signature is not right", flush=True)
            return
        # A retry has the same id: whoever acts on an event twice has not looked.
        event_id = self.headers["webhook-id"]
        with lock:
            if event_id not in seen:
                seen.add(event_id)
                print(f"verified: {json.dumps(json.loads(body))}", flush=True)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8092"))), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
