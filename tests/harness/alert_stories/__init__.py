"""The stories of all alerts."""

from tests.harness.alert_stories import events, ingress, services
from tests.harness.alert_stories.healthy import HEALTHY, Story

STORIES: list[Story] = [
    *services.PROCESSES,
    *events.FAILURES,
    *ingress.INGRESS,
    *ingress.SPOOLING,
    *services.KAFKA,
    *services.QUEUES,
    *services.WORKERS,
    *events.RECORDS,
]

__all__ = ["HEALTHY", "STORIES", "Story"]
