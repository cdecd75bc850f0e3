"""How publishing a record fails; `Handler` and `MnsPoller` each decide what that means for who sent it."""

from __future__ import annotations


class PublishError(Exception):
    """The record is not known to be in Kafka."""


class OverloadedError(PublishError):
    """As many records as allowed are waiting for Kafka already; this one was not taken."""


class AckTimeoutError(PublishError):
    """Kafka did not acknowledge in time, or was known to be away and was not asked."""


class KafkaFailedError(PublishError):
    """Kafka, or the connection to it, failed the batch the record was in."""


class SpoolFailedError(PublishError):
    """Kafka did not take the record, and the spool is full or its disk failed."""
