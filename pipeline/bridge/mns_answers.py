"""
What MNS answers, read: messages, what was not deleted, or an error. Pure; knows no HTTP beyond the status.

Any bytes give one of the three. Source: MNS's API reference, version 2015-06-06.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from pipeline.service.metrics.mns import MnsProblem

DETAIL_CHARACTERS_MAX = 200
EMPTY = "MessageNotExist"  # The answer of a queue without a message: no error.

_PROBLEMS = {
    "AccessDenied": MnsProblem.DENIED,
    "InvalidAccessKeyId": MnsProblem.DENIED,
    "SignatureDoesNotMatch": MnsProblem.DENIED,
    "InvalidSecurityToken": MnsProblem.DENIED,
    "SecurityTokenExpired": MnsProblem.DENIED,
    "QueueNotExist": MnsProblem.NO_QUEUE,
    "QpsLimitExceeded": MnsProblem.THROTTLED,
}
_FIELDS = ("MessageId", "ReceiptHandle", "MessageBody", "EnqueueTime")
# What ids and receipts consist of: else a request that carries one could be refused, and all others in it with it.
_TOKEN = re.compile(r"[!-~]{1,1024}")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6})|(amp|lt|gt|quot|apos));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class MnsError(Exception):
    """A request to MNS failed; *problem* is its metric label, the text is for the log and holds no message body."""

    def __init__(self, problem: MnsProblem, detail: str) -> None:
        super().__init__(detail[:DETAIL_CHARACTERS_MAX])
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    A received message.

    Its id, what deletes it, its body as sent (bytes that are no UTF-8 as surrogates), and when it came into the queue
    (epoch, ms; None: MNS did not say).
    """

    message_id: str
    receipt: str
    text: str
    enqueued_at_ms: int | None


def messages_of(status: int, answer: bytes) -> Sequence[Message]:
    """
    Return the messages in the answer to a request to receive; none if the queue is empty.

    A message without id or receipt is left out: it can't be deleted, and comes again.

    Raises:
        MnsError: MNS refused the request, or the answer is not one of MNS, or no message in it can be read.
    """
    if status != 200:
        code, detail = _refusal(status, answer)
        if code == EMPTY:
            return ()
        raise MnsError(_PROBLEMS.get(code, MnsProblem.OTHER), detail)
    try:
        root = _parse(answer)
    except ElementTree.ParseError:
        found = _salvage(answer.decode("utf-8", "surrogateescape"))
        is_known = bool(found)
    else:
        found = [{_name(field): field.text or "" for field in message} for message in root.iterfind("{*}Message")]
        is_known = _name(root) == "Messages"
    messages = [message for fields in found if (message := _message(fields)) is not None]
    if not is_known or (found and not messages):
        raise _damaged(status)
    return messages


def kept_of(status: int, answer: bytes) -> Mapping[str, str]:
    """
    Return why, as an MNS error code, by receipt, for each message that a batch deletion did not delete.

    Raises:
        MnsError: the request failed as a whole; which messages are gone is not known.
    """
    if 200 <= status < 300:
        return {}
    try:
        errors = _parse(answer).findall("{*}Error")
    except ElementTree.ParseError:
        errors = []
    kept = {error.findtext("{*}ReceiptHandle", ""): error.findtext("{*}ErrorCode", "") for error in errors}
    if kept and all(kept):
        return kept
    code, detail = _refusal(status, answer)
    raise MnsError(_PROBLEMS.get(code, MnsProblem.OTHER), detail)


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: MNS sends none, and only one can define entities, which expand without bound."""

    def doctype(self, *_: object) -> None:
        raise MnsError(MnsProblem.DAMAGED, "the answer has a document type, which MNS does not send")


def _parse(answer: bytes) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_WithoutDoctype(), encoding="utf-8")  # noqa: S314  # See _WithoutDoctype.
    parser.feed(answer)
    root: ElementTree.Element = parser.close()
    return root


def _refusal(status: int, answer: bytes) -> tuple[str, str]:
    """Return the code in an error answer, and a line for the log."""
    try:
        root = _parse(answer)
    except ElementTree.ParseError:
        raise _damaged(status) from None
    code = root.findtext("{*}Code")
    if not code:
        raise _damaged(status)
    return code, f"{code}: {root.findtext('{*}Message', 'no more is said')}"


def _damaged(status: int) -> MnsError:
    return MnsError(MnsProblem.DAMAGED, f"the answer, status {status}, is not what MNS sends")


def _name(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _message(fields: Mapping[str, str]) -> Message | None:
    message_id, receipt = fields.get("MessageId", ""), fields.get("ReceiptHandle", "")
    if not _TOKEN.fullmatch(message_id) or not _TOKEN.fullmatch(receipt):
        return None
    enqueued_at = fields.get("EnqueueTime", "")
    return Message(
        message_id=message_id,
        receipt=receipt,
        text=fields.get("MessageBody", ""),
        enqueued_at_ms=int(enqueued_at) if _MILLISECONDS.fullmatch(enqueued_at) else None,
    )


def _salvage(answer: str) -> list[Mapping[str, str]]:
    """
    Return the fields of each whole message in an answer that is no XML, read by their tags.

    One body that XML cannot carry, such as one with a control character, must neither hold up the messages around it
    nor stay in the queue.
    """
    parts = [part.partition("</Message>") for part in answer.split("<Message>")[1:]]
    return [{name: _between(f"<{name}>", f"</{name}>", text) for name in _FIELDS} for text, end, _ in parts if end]


def _between(start: str, end: str, text: str) -> str:
    """Return what stands between two tags, its references resolved; nothing if there is no such start."""
    return _REFERENCE.sub(_resolve, text.partition(start)[2].partition(end)[0])


def _resolve(reference: re.Match[str]) -> str:
    """Resolve a reference, also to what XML has no character for; leave alone what is no character at all."""
    decimal, hexadecimal, name = reference.groups()
    if name:
        return _NAMED[name]
    point = int(decimal) if decimal else int(hexadecimal, 16)
    is_surrogate = 0xD800 <= point < 0xE000
    return chr(point) if point <= sys.maxunicode and not is_surrogate else reference[0]
