"""An SMTP server that is not Postrider's: aiosmtpd, with faults on request.

Takes its settings as one JSON object in the first argument:

    {"tls": "none" | "starttls" | "implicit", "cert": "cert.pem", "key": "key.pem", "auth": {"user": ..., "password": ...},
     "require_auth": true, "fail": {"rcpt:<address>": "550 5.1.1 no such user", "mail": "421 ...", "data": "451 ..."},
     "greylist": ["<address>"], "hang": "rcpt" | "data" | "content" | "ehlo", "drop": "content", "smtputf8": true,
     "size": 1000, "quiet": true}

It prints `{"port": ...}`, then one line for each mail it has taken: envelope, and the message as the standard library's
`email` package reads it. With `quiet` it prints the number of mails each time a line arrives on standard input.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

settings = json.loads(sys.argv[1])
fail = settings.get("fail", {})
grey = set(settings.get("greylist", []))
count = 0


def say(value):
    print(json.dumps(value), flush=True)


def whole(text):
    """UTF-8 that `email` has read byte by byte."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8")


def parsed(content):
    message = email.message_from_bytes(content, policy=email.policy.default)
    parts = {}
    for part in message.walk():
        if part.get_content_maintype() == "text":
            parts[part.get_content_type()] = part.get_content()
    return {
        "headers": [[name, str(value)] for name, value in message.items()],
        "addresses": [[one.display_name, whole(one.addr_spec)] for one in message["To"].addresses],
        "parts": parts,
        "defects": [repr(d) for part in message.walk() for d in part.defects]
        + [repr(d) for value in message.values() for d in getattr(value, "defects", ())],
        "longest": max(len(line) for line in content.split(b"\r\n")),
        "ascii": content.isascii(),
    }


class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        if settings.get("hang") == "ehlo":
            await asyncio.sleep(3600)
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        if "mail" in fail:
            return fail["mail"]
        if settings.get("hang") == "mail":
            await asyncio.sleep(3600)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if settings.get("hang") == "rcpt":
            await asyncio.sleep(3600)
        if f"rcpt:{address}" in fail:
            return fail[f"rcpt:{address}"]
        if address in grey:
            grey.remove(address)
            return "451 4.7.1 greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        global count
        if settings.get("hang") == "content":
            await asyncio.sleep(3600)
        if settings.get("drop") == "content":
            server.transport.abort()
            return "250 too late"
        if "data" in fail:
            return fail["data"]
        count += 1
        if not settings.get("quiet"):
            say({
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "user": getattr(session, "auth_data", None) and session.auth_data.login.decode(),
                "tls": session.ssl is not None or settings.get("tls") == "implicit",
                "options": envelope.mail_options,
                **parsed(envelope.original_content),
            })
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    wanted = settings["auth"]
    good = (
        isinstance(data, LoginPassword)
        and data.login.decode() == wanted["user"]
        and data.password.decode() == wanted["password"]
        and wanted.get("mechanism", mechanism) == mechanism
    )
    return AuthResult(success=good, auth_data=data if good else None, handled=False)


async def main():
    tls = settings.get("tls", "none")
    context = None
    if tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings["cert"], settings["key"])

    def factory():
        options = {}
        if settings.get("auth"):
            mechanism = settings["auth"].get("mechanism")
            options["auth_exclude_mechanism"] = {"PLAIN", "LOGIN"} - {mechanism} if mechanism else ()
        return SMTP(
            Handler(),
            data_size_limit=settings.get("size", 33554432),
            enable_SMTPUTF8=settings.get("smtputf8", True),
            tls_context=context if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            auth_required=bool(settings.get("require_auth")),
            auth_require_tls=tls == "starttls",
            authenticator=authenticate if settings.get("auth") else None,
            **options,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context if tls == "implicit" else None)
    say({"port": server.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # Ends with whoever started it.
    while await reader.readline():
        say({"count": count})


asyncio.run(main())
