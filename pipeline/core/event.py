"""
The DeleteMediaComplete event: its schema, and why a body is invalid.

Source of the schema: ApsaraVideo VOD, "DeleteMediaComplete"; field order and examples in tests/vectors.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import isfinite
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from pipeline.core.contract import SUCCESS
from pipeline.core.outcome import Ignored, Reason, Rejected

EVENT_TYPE = "DeleteMediaComplete"
BODY_BYTES_MAX = 64 * 1024  # What MNS can carry, too.
MEDIA_ID_LETTERS_MAX = 256
UNKNOWN_CODE = "unknown"
CONTENTS_CACHED_MAX = 8192
CONTENT_LETTERS_MAX = 1024  # Of what is cached: a body's 64 KiB can become 260 KiB of text, and hardly come again.

# Every event type VOD documents: the labels under which other types are counted. The set is closed, as labels must be.
OTHER_EVENT_TYPES = frozenset(
    {
        "FileUploadComplete",
        "ImageUploadComplete",
        "AttachedMediaUploadComplete",
        "UploadByURLComplete",
        "StreamTranscodeComplete",
        "TranscodeComplete",
        "SnapshotComplete",
        "DynamicImageComplete",
        "AddLiveRecordVideoComplete",
        "LiveRecordVideoComposeStart",
        "CreateAuditComplete",
        "AIMediaAuditComplete",
        "AIMediaDNAComplete",
        "AIVideoTagComplete",
        "AIVideoCensorComplete",
        "VideoAnalysisComplete",
        "ProduceMediaComplete",
        "MediaBaseChangeComplete",
        "UpdateMediaStorageClassComplete",
        "RestoreMediaComplete",
        "SubmitMediaRefreshComplete",
        "WorkflowTaskComplete",
    }
)

MediaId = Annotated[str, StringConstraints(min_length=1, max_length=MEDIA_ID_LETTERS_MAX)]


# A TypedDict and not a model: it is validated faster, and the body itself stays the record.
@with_config(ConfigDict(extra="allow", strict=True))
class DeleteMediaComplete(TypedDict):
    """One deletion, as VOD announces it. Unknown fields are allowed and kept."""

    EventType: Literal["DeleteMediaComplete"]
    EventTime: str
    Status: Literal["success", "fail"]
    MediaType: Literal["video", "image", "attached"]
    DeleteType: Literal["all", "mezzanine", "stream"]
    MediaId: MediaId
    # fail_fast: a body of 30,000 wrong JobIds would else cost an error each.
    JobIds: NotRequired[str | Annotated[list[str], Field(fail_fast=True)]]
    ErrorCode: NotRequired[Annotated[str, StringConstraints(max_length=128)]]
    ErrorMessage: NotRequired[str]


# No `from __future__ import annotations` in this module: it would hide NotRequired from these two sets.
_REQUIRED = DeleteMediaComplete.__required_keys__
_REQUIRED_COUNT = len(_REQUIRED)
_KNOWN = _REQUIRED | DeleteMediaComplete.__optional_keys__

# The raising entry point of the hot path: bytes -> DeleteMediaComplete, or ValidationError. See `explain`.
validate = TypeAdapter(DeleteMediaComplete).validator.validate_json


class _Keyed(TypedDict):
    MediaId: MediaId


_keyed = TypeAdapter(_Keyed).validator.validate_json


def media_id_of(body: bytes) -> bytes | None:
    """
    Return the record key of a callback body: its MediaId in UTF-8, or None where it has none that could be valid.

    Total: any bytes have an answer. The body is not judged further; that is the accept stage's work.
    """
    try:
        return _keyed(body)["MediaId"].encode()  # type: ignore[no-any-return]  # pydantic's validator is untyped.
    except ValidationError:
        return None


def explain(error: ValidationError) -> Ignored | Rejected:
    """
    Say why `validate` refused a body, given what it raised.

    Everything is in the error already: parsing the body once more would let a sender of refused bodies cost us double.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    where, message, given = first["loc"], first["msg"], first["input"]
    if first["type"] == "json_invalid":
        return Rejected(Reason.INVALID_JSON, message.removeprefix("Invalid JSON: "))
    if isinstance(given, float) and not isfinite(given):  # pydantic reads NaN and Infinity, JSON has neither.
        return Rejected(Reason.INVALID_JSON, f"{'.'.join(map(str, where)) or 'the body'} is {given}")
    if not where:
        return Rejected(Reason.NOT_AN_OBJECT, f"the body is a JSON {type(given).__name__}")
    # EventType is the schema's first field, and errors come in the schema's order.
    if where == ("EventType",) and isinstance(given, str):
        return Ignored(given if given in OTHER_EVENT_TYPES else "other")
    return Rejected(Reason.INVALID_FIELD, f"{'.'.join(map(str, where))}: {message}")


@dataclass(frozen=True, slots=True, eq=False)  # Compared and hashed by identity: `fingerprint` says what is equal.
class Content:
    """
    What an event says, apart from which event it is.

    `fingerprint` is equal for equal content, whatever the order or spacing: 64 bits, stable across processes and
    versions, as it is stored in `accepted`.
    `code` is the ErrorCode a failure counts under, or SUCCESS; `code_bytes` the same in UTF-8.
    """

    fingerprint: int
    code: str
    code_bytes: bytes
    status: str
    media_type: str
    delete_type: str


def content_of(event: DeleteMediaComplete) -> Content:
    """
    Return the content of a validated *event*.

    Raises:
        ValueError: an unknown field holds a number JSON cannot hold (NaN, Infinity).
    """
    if len(event) == _REQUIRED_COUNT:  # The common case: nothing optional, nothing unknown.
        return _plain(event["Status"], event["MediaType"], event["DeleteType"])
    job_ids, error_code, error_message = event.get("JobIds"), event.get("ErrorCode"), event.get("ErrorMessage")
    known = _REQUIRED_COUNT + (job_ids is not None) + (error_code is not None) + (error_message is not None)
    extras = {name: event[name] for name in event if name not in _KNOWN} if len(event) > known else None  # type: ignore[literal-required]
    jobs = None if job_ids is None else tuple(job_ids.split(",") if isinstance(job_ids, str) else job_ids)
    others = None if extras is None else _canonical(extras)
    letters = sum(map(len, jobs or ())) + len(jobs or ()) + len(error_message or "") + len(others or "")
    make = _content if letters <= CONTENT_LETTERS_MAX else _content.__wrapped__
    return make(event["Status"], event["MediaType"], event["DeleteType"], jobs, error_code, error_message, others)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=32)
def _plain(status: str, media_type: str, delete_type: str) -> Content:
    return _content(status, media_type, delete_type, None, None, None, None)


# Contents repeat (most deletions succeed alike), so the digest is nearly always a look-up.
@lru_cache(maxsize=CONTENTS_CACHED_MAX)
def _content(  # noqa: PLR0917  # Positional, as keywords make a cached call twice as slow.
    status: str,
    media_type: str,
    delete_type: str,
    job_ids: tuple[str, ...] | None,
    error_code: str | None,
    error_message: str | None,
    extras: str | None,
) -> Content:
    fields = [status, media_type, delete_type, job_ids, error_code, error_message, extras]
    digest = blake2b(_canonical(fields).encode(), digest_size=8).digest()
    code = SUCCESS if status == "success" else error_code or UNKNOWN_CODE
    return Content(int.from_bytes(digest), code, code.encode(), status, media_type, delete_type)
