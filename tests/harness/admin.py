"""What tests do to Kafka that no command does: kafka-python's admin client, for a `with` block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka.admin import KafkaAdminClient

if TYPE_CHECKING:
    from pipeline.service.settings import Settings


def admin_of(settings: Settings) -> KafkaAdminClient:
    """Return an admin client of the Kafka of *settings*, to be closed by the caller."""
    return KafkaAdminClient(**settings.kafka.client_options())
