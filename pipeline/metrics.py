"""
The metric catalogue: every metric of the product, with its meaning for an operator.

Base units, own registry, labels out of closed sets only. What can be 0 is shown as 0 from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.core.signature import Denial

ERROR_CODES_MAX = 50
OTHER_CODE = "other"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CodeLabels:
    """Bounds the error_code label: the first 50 codes seen keep their name, later ones are `other`."""

    def __init__(self, *, limit: int = ERROR_CODES_MAX) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def label(self, code: str) -> str:
        """Return the label value of an ErrorCode: printable, and itself only while there is room for it."""
        known = self._known.get(code)
        if known is None:
            if len(self._known) >= self._limit:
                return OTHER_CODE
            known = self._known[code] = "".join(c if c.isprintable() else "?" for c in code)
        return known


class BridgeAnswer(StrEnum):
    """How the bridge answered: the `outcome` label of pipeline_bridge_requests_total."""

    PUBLISHED = "published"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
    CLIENT_GONE = "client_gone"
    KAFKA_TIMEOUT = "kafka_timeout"
    KAFKA_ERROR = "kafka_error"
    OVERLOADED = "overloaded"


class BridgeMetrics:
    """What the bridge counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pipeline_bridge_requests",
            "Requests by how they ended; anything but published is an event VOD may give up on, or not VOD at all.",
            ["outcome"],
            registry=registry,
        )
        self.denials = Counter(
            "pipeline_bridge_denials",
            "Requests answered 403 by reason; a rise after a key change means VOD still signs with a key we dropped.",
            ["reason"],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "pipeline_bridge_publish_seconds",
            "From a group of callbacks being sent to Kafka to its acks=all; a rise means slow brokers.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.group_records = Histogram(
            "pipeline_bridge_group_records",
            "Callbacks sent to Kafka together; grows with load, and with the time Kafka takes.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
            registry=registry,
        )
        self.in_flight = Gauge(
            "pipeline_bridge_in_flight",
            "Callbacks waiting for Kafka; at bridge.in_flight_max more are refused.",
            registry=registry,
        )
        self.producer_restarts = Counter(
            "pipeline_bridge_producer_restarts",
            "Producers replaced after a failed batch; a rise means Kafka fails or refuses.",
            registry=registry,
        )
        for answer in BridgeAnswer:
            self.requests.labels(answer.value)
        for denial in Denial:
            self.denials.labels(denial.value)


def observe_many(histogram: Histogram, values: Iterable[float]) -> None:
    """Observe each of *values*."""
    for value in values:
        histogram.observe(value)
