"""Verifies webhook signatures with libraries that are not Postrider's.

Reads one JSON object per line from standard input and answers each with one JSON line. Every request has `headers` and
`body_base64`; `secret` is the key as the receiver would be given it.

    {"scheme": "standard", "secret": "whsec_...", ...}      Standard Webhooks v1
    {"scheme": "ed25519", "secret": "whpk_...", ...}        Standard Webhooks v1a, with the public key
    {"scheme": "stripe", "secret": "...", ...}              Stripe-Signature
    {"scheme": "github", "secret": "...", ...}              X-Hub-Signature-256
    {"scheme": "hmac", "secret": "...", "header": "X-Signature", "encoding": "hex" | "base64", "prefix": "sha256=",
     "algorithm": "sha1" | "sha256" | "sha384" | "sha512", "before": "...", "after": "...", ...}
                                                            an HMAC of text, body and text

    {"ok": true, "error": null}
    {"ok": false, "error": "No matching signature found"}

Run it with the interpreter in `$POSTRIDER_VERIFIERS/venv/bin` (see ensure.sh).
"""

import base64
import hashlib
import hmac
import json
import sys
import time

import stripe
from nacl.signing import VerifyKey
from standardwebhooks.webhooks import Webhook

TOLERANCE = 300


def ed25519(public, headers, body):
    """The standardwebhooks library of PyPI knows v1 only; the signature itself is libsodium's to judge."""
    key = VerifyKey(base64.b64decode(public.removeprefix("whpk_"), validate=True))
    stamp = headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > TOLERANCE:
        raise ValueError("Message timestamp too old or too new")
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, _, code = signature.partition(",")
        if version == "v1a":
            try:
                return key.verify(signed, base64.b64decode(code, validate=True))
            except Exception:  # another one may fit
                continue
    raise ValueError("No matching signature found")


def plain(request, headers, body, algorithm):
    signed = request.get("before", "").encode() + body + request.get("after", "").encode()
    digest = hmac.new(request["secret"].encode(), signed, getattr(hashlib, algorithm)).digest()
    encoded = digest.hex() if request["encoding"] == "hex" else base64.b64encode(digest).decode()
    wanted = request.get("prefix", "") + encoded
    given = headers.get(request["header"].lower())
    if given is None:
        raise ValueError("Missing header " + request["header"])
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        raise ValueError("No matching signature found")


def verify(request):
    headers = {name.lower(): value for name, value in request["headers"].items()}
    body = base64.b64decode(request["body_base64"], validate=True)
    scheme = request["scheme"]
    if scheme == "standard":
        Webhook(request["secret"]).verify(body, headers, json_parse=False)
    elif scheme == "ed25519":
        ed25519(request["secret"], headers, body)
    elif scheme == "stripe":
        given = headers.get("stripe-signature")
        stripe.WebhookSignature.verify_header(body.decode(), given, request["secret"], TOLERANCE)
    elif scheme == "github":
        like = {"header": "X-Hub-Signature-256", "encoding": "hex", "prefix": "sha256=", "secret": request["secret"]}
        plain(like, headers, body, "sha256")
    elif scheme == "hmac":
        plain(request, headers, body, request.get("algorithm", "sha256"))
    else:
        raise ValueError("Unknown scheme " + scheme)


for line in sys.stdin:
    try:
        verify(json.loads(line))
        answer = {"ok": True, "error": None}
    except Exception as problem:  # whatever a library throws is its verdict
        answer = {"ok": False, "error": str(problem) or type(problem).__name__}
    print(json.dumps(answer), flush=True)
