"""What is left of an error of Kafka's client: its cause, in one line."""

from __future__ import annotations

import pytest
from kafka.errors import InvalidReplicationFactorError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from pipeline.kafka.tools.refusals import CHARACTERS_MAX, cause_of

REQUEST = "Request 'CreateTopicsRequest(version=7, topics=[CreatableTopic(name='x.raw', num_partitions=4)] * 100)'"
REPLICAS = "Unable to replicate the partition 3 time(s): only 1 broker(s) are registered."


def answer(*messages: str) -> str:
    results = ", ".join(f"CreatableTopicResult(name='x', error_message={message!r}, x=1)" for message in messages)
    return f"{REQUEST} failed with response 'CreateTopicsResponse(topics=[{results}])'."


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (InvalidReplicationFactorError(answer(REPLICAS, REPLICAS)), f"InvalidReplicationFactorError: {REPLICAS}"),
        (
            TopicAuthorizationFailedError(answer("no 'Create' right", "the \"same\" and 'more'")),
            "TopicAuthorizationFailedError: no 'Create' right; the \"same\" and \\'more\\'",
        ),
        (
            TopicAuthorizationFailedError(answer("")),
            "TopicAuthorizationFailedError: Returned by the broker when the client is not authorized to access the"
            " requested topic.",
        ),
        (KafkaTimeoutError("Failed to update\n metadata"), "KafkaTimeoutError: Failed to update metadata"),
        (KafkaError("x" * 1000), ("KafkaError: " + "x" * 1000)[:CHARACTERS_MAX] + "..."),
    ],
)
def test_the_cause_is_what_the_broker_says_or_what_the_error_means(error: KafkaError, cause: str) -> None:
    assert cause_of(error) == cause


def test_whatever_it_says_is_short() -> None:
    many = (f"reason {number}" for number in range(1000))

    assert len(cause_of(InvalidReplicationFactorError(answer(*many)))) <= CHARACTERS_MAX + 3
