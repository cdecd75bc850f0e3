"""Processes, Kafka, MNS queues and workers in trouble."""

from __future__ import annotations

from tests.harness.alert_stories.healthy import (
    BRIDGE,
    KEYS,
    KEYS_2,
    LAG,
    PAUSED,
    RECONNECTS,
    REFUSALS,
    REFUSED,
    REOPENED,
    STARTED,
    UP_BRIDGE,
    UP_WORKER,
    W2,
    WAITED_FOR,
    WATERMARK,
    WORKER,
    Story,
    certificate,
    fires,
    mns_errors,
    mns_messages,
    publish_bucket,
)

PROCESSES = [
    Story("all is well", 30),
    Story(
        "the worker does not answer",
        7,
        {UP_WORKER: "1x5 0x5"},
        fires("ProcessDown", "worker at worker:8082 has not answered for a minute.", **WORKER),
    ),
    Story("one scrape fails", 6, {UP_WORKER: "1x5 0 1x5"}),
    Story(
        "the bridge's name is not known",
        3,
        {UP_BRIDGE: None},
        fires("ServiceMissing", "There is no bridge to ask: 1 service without a single process.", job="bridge"),
    ),
    Story("the bridge's name was not known for a minute", 4, {UP_BRIDGE: "1x2 stale _ 1x10"}),
    Story("one of two workers is taken away", 9, {f"up{{{W2}}}": "1x3 stale"}),
    Story(
        "a worker ends itself every three minutes",
        14,
        {STARTED: "0x2 180x2 360x2 540x9"},
        fires("ProcessRestarting", "worker at worker:8082 started 3 times in 15 minutes.", **WORKER),
    ),
    Story("a worker was started twice", 14, {STARTED: "0x2 180x2 360x12"}),
]

KAFKA = [
    Story(
        "connections fail one after the other",
        20,
        {RECONNECTS: "0x5 0+1x20"},
        fires("KafkaUnstable", "bridge:8081 lost Kafka 14 times in 15 minutes.", instance="bridge:8081"),
    ),
    Story("a broker restarts", 20, {RECONNECTS: "0x5 1x5 2x20"}),
    Story(
        "Kafka is slow",
        20,
        {publish_bucket("0.25"): "0+50x30"},
        fires("PublishSlow", "One batch of callbacks in a hundred takes 2.455s or more to be acknowledged."),
    ),
    Story("Kafka was slow for four minutes", 9, {publish_bucket("0.25"): "0+99.5x5 547.5+50x10"}),
    Story(
        "Kafka refuses us",
        9,
        {REFUSALS: "0x5 0+4x20"},
        fires("KafkaRefuses", "Kafka refused bridge:8081 12 times in 5 minutes.", instance="bridge:8081"),
    ),
    Story("Kafka refused us once", 18, {REFUSALS: "0x14 1x20"}),
    Story(
        "a certificate has 13 days left",
        20,
        {certificate("kafka_client"): f"{13 * 86400 + 1200}x20"},
        fires(
            "CertificateExpiring",
            "kafka_client certificate CN=a of bridge:8081 ends in 13d 0h 0m 0s.",
            **BRIDGE,
            use="kafka_client",
            subject="CN=a",
        ),
    ),
    Story("a certificate has a quarter of an hour more than 14 days left", 20, {certificate("bridge"): "1211700x20"}),
    Story(
        "a certificate has ended",
        20,
        {certificate("bridge"): "900x20"},
        fires(
            "CertificateExpired",
            "bridge certificate CN=a of bridge:8081 ends in -5m 0s.",
            **BRIDGE,
            use="bridge",
            subject="CN=a",
        ),
        also=frozenset({"CertificateExpiring"}),
    ),
]

QUEUES = [
    Story(
        "the queue refuses our key",
        11,
        {mns_errors("denied"): "0x5 0+1x20"},
        fires(
            "QueueRefused",
            "Queue q of entry a refused 5 requests in 5 minutes: denied.",
            entry="a",
            queue="q",
            reason="denied",
        ),
    ),
    Story("it refused one request", 10, {mns_errors("denied"): "0x5 1x20"}),
    Story(
        "requests to the queue fail",
        25,
        {mns_errors("network"): "0x5 0+1x20"},
        fires("QueueFailing", "15 requests to queue q of entry a failed in 15 minutes.", entry="a", queue="q"),
    ),
    Story("five failed", 25, {mns_errors("network"): "0x5 0+0.3333x20"}),
    Story(
        "messages are not published",
        30,
        {mns_messages("not_published"): "0x5 0+1x30"},
        fires(
            "MessagesKept",
            "10 messages of queue q of entry a were not_published in 10 minutes.",
            entry="a",
            queue="q",
            step="not_published",
        ),
    ),
    Story("for a minute they were not", 14, {mns_messages("not_published"): "0x5 9x30"}),
]

ACCEPT_0 = {"stage": "accept", "partition": "0"}

WORKERS = [
    Story(
        "a worker falls behind",
        30,
        {LAG: "0x5 100+100x30"},
        fires("LagGrowing", "Stage accept is 2500 records behind, and falls back further.", stage="accept"),
    ),
    Story("it catches up", 30, {LAG: "90000-1000x40"}),
    Story("it is 960 records behind, and one more each minute", 30, {LAG: "0x5 950+1x30"}),
    Story(
        "a watermark stands still",
        16,
        {WATERMARK: "-30+60x5 270x20"},
        fires("WatermarkStuck", "The watermark of partition 0 is 11m 30s behind the clock.", partition="0"),
    ),
    Story("a watermark stood still for nine minutes", 14, {WATERMARK: "-30+60x5 270x20"}),
    Story(
        "one partition is read by none while the others go on",
        12,
        {WAITED_FOR: "_x2 130+60x3 310+60x20"},
        fires(
            "WindowsHeldBack",
            "Other partitions are 11m 10s past the end of a window that waits for partition 3.",
            partition="3",
        ),
    ),
    Story("a window waits, the others less than five minutes past its end", 20, {WAITED_FOR: "_x2 130+60x2 290x20"}),
    Story("a window has waited, and its partition comes", 10, {WAITED_FOR: "_x2 130+60x7 stale"}),
    Story(
        "the partition's last worker went away, and another shows none",
        12,
        {KEYS: "1000x5 stale"},
        fires("PartitionWithoutOwner", "1 partitions have no worker."),
    ),
    Story("another worker takes the partition", 9, {KEYS: "1000x5 stale", KEYS_2: "_x10 1000x10"}),
    Story(
        "the rejection limit on rejections stops a partition",
        6,
        {PAUSED: "0x5 1x20"},
        fires(
            "PartitionPaused", "Stage accept stands still in partition 0: rejections.", **ACCEPT_0, cause="rejections"
        ),
    ),
    Story(
        "Kafka refuses what a partition is to write",
        6,
        {REFUSED: "0x5 1x20"},
        fires("PartitionPaused", "Stage accept stands still in partition 0: refused.", **ACCEPT_0, cause="refused"),
    ),
    Story("a worker that had stopped a partition is restarted", 8, {PAUSED: "1x5 stale _ 0x20"}),
    Story(
        "transactions fail again and again",
        20,
        {REOPENED: "0x5 0+1x20"},
        fires("PartitionReopened", "10 transactions of stage accept failed in 10 minutes.", stage="accept"),
    ),
    Story("a broker restarts, and some fail", 20, {REOPENED: "0x15 4x20"}),
]
