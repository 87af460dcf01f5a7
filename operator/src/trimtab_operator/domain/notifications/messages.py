"""What is sent: a CloudEvent 1.0 in its structured JSON form, or a text for Slack and what understands the same."""

from __future__ import annotations

import json
from dataclasses import dataclass

from trimtab_operator.api import API_VERSION

from ..kinds import KINDS
from ..plan import Body
from .endpoints import Endpoint, Format
from .transitions import Transition


@dataclass(frozen=True)
class Message:
    """A request's body, and what it says that it is."""

    content_type: str
    body: bytes


def message_of(endpoint: Endpoint, transition: Transition) -> Message:
    """Return what an endpoint is sent of a transition; always the same bytes for the same one."""
    if endpoint.format == Format.SLACK:
        return Message("application/json", _json({"text": slack_text(endpoint, transition)}))
    return Message("application/cloudevents+json; charset=utf-8", _json(cloud_event(endpoint, transition)))


def cloud_event(endpoint: Endpoint, transition: Transition) -> Body:
    """Return the event with all its attributes (CloudEvents 1.0.2, section 3); `reason` is an extension of ours."""
    plural = KINDS[transition.kind].crd.plural
    place = f"/apis/{API_VERSION}/namespaces/{transition.namespace}/{plural}/{transition.name}"
    about = {"attempt": transition.attempt, "digest": transition.digest}
    return {
        "specversion": "1.0",
        "id": transition.id,
        "source": f"//{endpoint.cluster}{place}" if endpoint.cluster else place,
        "type": f"dev.trimtab.{transition.kind.lower()}.condition",
        "subject": f"{transition.namespace}/{transition.name}",
        "time": transition.seen,
        "reason": transition.reason,
        "datacontenttype": "application/json",
        "data": {
            "apiVersion": API_VERSION,
            "kind": transition.kind,
            "namespace": transition.namespace,
            "name": transition.name,
            "uid": transition.uid,
            "generation": transition.generation,
            "condition": {
                "type": transition.type,
                "status": transition.status,
                "reason": transition.reason,
                "message": transition.message,
                "lastTransitionTime": transition.since,
            },
            **{key: value for key, value in about.items() if value is not None},
        },
    }


def slack_text(endpoint: Endpoint, transition: Transition) -> str:
    """Return one paragraph. What somebody wrote into a message is text there: it calls nobody, and hides no link."""
    where = f"{transition.namespace}/{transition.name}" + (f" on {endpoint.cluster}" if endpoint.cluster else "")
    return f"*{transition.kind} {where}: {plain(transition.reason)}*\n{plain(transition.message)}".rstrip()


def plain(text: str) -> str:
    """Return what no chat reads as more than text: Slack's own escapes, and an @ and a ] that elsewhere are a mention
    and a link of Markdown, which hides where it leads. It is one line: another one could look like a message of ours.
    """
    escaped = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("@", "@\u200b").replace("]", "]\u200b")


def _json(value: Body) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
