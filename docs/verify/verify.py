"""Verifies a webhook's signature.

    pip install standardwebhooks
    python3 verify.py standard "$SECRET" "webhook-id: ..." "webhook-timestamp: ..." "webhook-signature: ..." < body
    python3 verify.py hmac "$SECRET" "X-Acme-HMAC-SHA-256: ..." < body
"""

import hashlib
import hmac
import sys

from standardwebhooks.webhooks import Webhook


def verify_standard(secret: str, headers: dict, body: bytes) -> None:
    """Raises when the request is not genuine. Names of headers are in lower case."""
    Webhook(secret).verify(body, headers)


def verify_hmac(secret: str, signature: str, body: bytes) -> bool:
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


if __name__ == "__main__":
    scheme, secret, *lines = sys.argv[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = sys.stdin.buffer.read()
    if scheme == "standard":
        try:
            verify_standard(secret, headers, body)
        except Exception as problem:
            sys.exit(f"forged: {problem}")
    elif not verify_hmac(secret, headers.get("x-acme-hmac-sha-256", ""), body):
        sys.exit("forged")
    print("genuine")
