"""Judges bodies of ready formats with the models of the services' own libraries.

Reads one JSON object per line from standard input and answers each with one JSON line:

    {"service": "Slack", "body_base64": "..."}

    {"ok": true, "error": null}
    {"ok": false, "error": "HeaderBlock.text attribute cannot exceed 150 characters"}

Limits that a vendor documents and its library does not know are checked beside it, with the page they are from.
Run it with the interpreter in `$POSTRIDER_VERIFIERS/venv/bin` (see ensure.sh).
"""

import base64
import io
import json
import logging
import sys
import warnings
import zlib
from xml.etree import ElementTree

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


def same(given, read, path="body"):
    """Fails at the first place where what a library read is not what it was given: it left something out."""
    if isinstance(given, dict) and isinstance(read, dict):
        for name in given:
            if name not in read:
                raise ValueError(f"{path}.{name} is unknown to the library")
            same(given[name], read[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, item in enumerate(given):
            same(item, read[index], f"{path}[{index}]")
    elif given != read:
        raise ValueError(f"{path} is read as {str(read)[:80]!r}")


def at_most(path, text, most, length=len):
    if length(text) > most:
        raise ValueError(f"{path} has {length(text)} characters or bytes, {most} are allowed")


def slack(body):
    from slack_sdk.models.blocks import Block
    from slack_sdk.webhook import WebhookClient

    message = json.loads(body)
    # What may stand beside text and blocks: the client's arguments, and two of custom integrations.
    known = set(WebhookClient.send.__code__.co_varnames) | {"channel", "username"}
    unknown = set(message) - known
    if unknown:
        raise ValueError(f"{unknown} is unknown to the library")
    # https://docs.slack.dev/reference/methods/chat.postMessage
    at_most("text", message["text"], 40_000)
    at_most("blocks", message["blocks"], 50)
    for index, given in enumerate(message["blocks"]):
        block = Block.parse(given)
        if block is None:
            raise ValueError(f"blocks[{index}] is no block")
        block.validate_json()
        for element in getattr(block, "elements", None) or []:
            element.validate_json()
        same(given, json.loads(json.dumps(block.to_dict())), f"blocks[{index}]")


def datadog(body):
    from datadog_api_client.v2.model.http_log import HTTPLog
    from datadog_api_client.v2.model.http_log_item import HTTPLogItem

    logs = json.loads(body)
    if not isinstance(logs, list):
        raise ValueError("the body is no array")
    # https://docs.datadoghq.com/api/latest/logs/#send-logs
    at_most("logs", logs, 1000)
    at_most("body", body, 5_000_000)
    for log in logs:
        at_most("log", json.dumps(log, ensure_ascii=False).encode(), 1_000_000)
    read = HTTPLog([HTTPLogItem(**log) for log in logs])
    same(logs, [item.to_dict() for item in read.value])


def new_relic(body):
    from newrelic_telemetry_sdk import Log, LogClient

    (batch,) = json.loads(body)
    made = [
        Log(log["message"], timestamp=log["timestamp"], **log["attributes"]) for log in batch["logs"]
    ]
    payload = LogClient("key")._create_payload(made, batch["common"])
    same([batch], json.loads(zlib.decompress(payload, zlib.MAX_WBITS | 32)))
    # https://docs.newrelic.com/docs/logs/log-api/log-event-data/ and …/introduction-log-api/#limits
    at_most("body", body, 1_000_000)
    for log in batch["logs"]:
        attributes = {**batch["common"]["attributes"], **log["attributes"]}
        at_most("attributes", attributes, 255)
        reserved = {"accountId", "eventType", "entity.guid", "entity.name", "entity.type"}
        if reserved & set(attributes):
            raise ValueError(f"{reserved & set(attributes)} is reserved")
        for name, value in attributes.items():
            at_most(name, name, 255)
            if isinstance(value, str):
                at_most(name, value, 4_094)
            elif not isinstance(value, (int, float, bool)):
                raise ValueError(f"{name} is neither text, number nor boolean")


def sentry(body):
    from sentry_relay.processing import StoreNormalizer
    from sentry_sdk.envelope import Envelope

    # https://develop.sentry.dev/sdk/foundations/envelopes/#size-limits
    at_most("body", body, 1_000_000)
    envelope = Envelope.deserialize_from(io.BytesIO(body))
    event = envelope.get_event()
    if len(envelope.items) != 1 or event is None:
        raise ValueError("the envelope has not one event")
    if envelope.headers["event_id"] != event["event_id"]:
        raise ValueError("the envelope and its event have different ids")
    # Relay is the part of Sentry that takes events in; it notes what it refuses or shortens.
    taken = StoreNormalizer(client_ip="203.0.113.1").normalize_event(event)
    if taken.get("errors"):
        raise ValueError(json.dumps(taken["errors"]))
    if taken["event_id"] != event["event_id"] or taken["level"] != event["level"]:
        raise ValueError("Relay changed the id or the level")
    for name, note in (taken.get("_meta") or {}).items():
        # Everything but the event itself arrives as it was sent; of that, Sentry keeps what it can show.
        if name != "extra":
            raise ValueError(f"Relay changed {name}: {json.dumps(note)}")


def google_chat(body):
    from google.apps.chat_v1.types import Message
    from google.protobuf import json_format

    # https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages
    at_most("message", body, 32_000)
    message = json_format.ParseDict(json.loads(body), Message.pb(Message()), ignore_unknown_fields=False)
    for card in message.cards_v2:
        widgets = sum(len(section.widgets) for section in card.card.sections)
        if not 1 <= widgets <= 100:
            raise ValueError(f"a card has {widgets} widgets")


def opsgenie(body):
    import opsgenie_sdk

    alert = json.loads(body)
    model = opsgenie_sdk.CreateAlertPayload
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for name in alert:
        if name not in names:
            raise ValueError(f"{name} is unknown to the library")
    answer = type("Answer", (), {"data": body.decode()})
    read = opsgenie_sdk.ApiClient().deserialize(answer, model)
    same(alert, {names_json: getattr(read, name) for names_json, name in names.items()})
    # https://docs.opsgenie.com/docs/alert-api#create-alert
    for name, most in [
        ("message", 130), ("alias", 512), ("description", 15_000), ("entity", 512), ("source", 100), ("tags", 20),
    ]:
        at_most(name, alert[name], most)
    for tag in alert["tags"]:
        at_most("a tag", tag, 50)
    at_most("details", "".join(name + value for name, value in alert["details"].items()), 8_000)
    if alert["priority"] not in {"P1", "P2", "P3", "P4", "P5"}:
        raise ValueError("there is no such priority")


def known(model):
    """Fails when a pydantic model, or one within it, has members that it does not know."""
    if isinstance(model, (list, tuple)):
        for item in model:
            known(item)
    elif hasattr(model, "model_extra"):
        if model.model_extra:
            raise ValueError(f"{set(model.model_extra)} is unknown to {type(model).__name__}")
        for name in model.model_fields_set:
            known(getattr(model, name))


def telegram(body):
    from aiogram.methods import SendMessage
    from sulguk import transform_html

    given = json.loads(body)
    message = SendMessage.model_validate(given)
    known(message)
    same(given, message.model_dump(mode="json", exclude_unset=True))
    if message.parse_mode != "HTML" or not message.chat_id:
        raise ValueError("the message is not HTML, or has no chat")
    # https://core.telegram.org/bots/api#html-style: & < > begin nothing but entities and tags.
    plain = "".join(char if char in "\n\t" or char >= " " else "?" for char in message.text)
    ElementTree.fromstring(f"<message>{plain}</message>")
    read = transform_html(plain)
    for entity in read.entities:
        if entity["type"] not in {"bold"}:
            raise ValueError(f"the event makes a {entity['type']}")
    # https://core.telegram.org/bots/api#sendmessage, after entities are parsed, in UTF-16 units
    at_most("text", read.text, 4_096, lambda text: len(text.encode("utf-16-le")) // 2)


SERVICES = {
    "Slack": slack,
    "Datadog": datadog,
    "NewRelic": new_relic,
    "Sentry": sentry,
    "GoogleChat": google_chat,
    "Opsgenie": opsgenie,
    "Telegram": telegram,
}

for line in sys.stdin:
    try:
        request = json.loads(line)
        SERVICES[request["service"]](base64.b64decode(request["body_base64"], validate=True))
        answer = {"ok": True, "error": None}
    except Exception as problem:  # whatever a library throws is its verdict
        answer = {"ok": False, "error": f"{type(problem).__name__}: {problem}"[:2000]}
    print(json.dumps(answer), flush=True)
