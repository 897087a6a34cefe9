"""Verifies webhook signatures with libraries that are not Postrider's.

Reads one JSON object per line from standard input and answers each with one JSON line:

    {"scheme": "standard", "secret": "whsec_...", "headers": {...}, "body_base64": "..."}
    {"scheme": "hmac", "secret": "...", "headers": {...}, "body_base64": "...",
     "header": "X-Signature", "encoding": "hex" | "base64", "prefix": "sha256="}

    {"ok": true, "error": null}
    {"ok": false, "error": "No matching signature found"}

Run it with the interpreter in `$POSTRIDER_VERIFIERS/venv/bin` (see ensure.sh).
"""

import base64
import hashlib
import hmac
import json
import sys

from standardwebhooks.webhooks import Webhook


def verify(request):
    headers = {name.lower(): value for name, value in request["headers"].items()}
    body = base64.b64decode(request["body_base64"], validate=True)
    if request["scheme"] == "standard":
        Webhook(request["secret"]).verify(body, headers, json_parse=False)
    elif request["scheme"] == "hmac":
        digest = hmac.new(request["secret"].encode(), body, hashlib.sha256).digest()
        encoded = digest.hex() if request["encoding"] == "hex" else base64.b64encode(digest).decode()
        wanted = request.get("prefix", "") + encoded
        given = headers.get(request["header"].lower())
        if given is None:
            raise ValueError("Missing header " + request["header"])
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise ValueError("No matching signature found")
    else:
        raise ValueError("Unknown scheme " + request["scheme"])


for line in sys.stdin:
    try:
        verify(json.loads(line))
        answer = {"ok": True, "error": None}
    except Exception as problem:  # whatever a library throws is its verdict
        answer = {"ok": False, "error": str(problem) or type(problem).__name__}
    print(json.dumps(answer), flush=True)
