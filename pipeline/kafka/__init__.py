"""
Kafka as this product uses it: the only room that knows a client library, and the one place of all their insides.

What other rooms handle of Kafka are its own values, exported here.
"""

from aiokafka import AIOKafkaConsumer as Consumer
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient as AdminClient
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.record.default_records import DefaultRecord
from aiokafka.structs import OffsetAndMetadata

__all__ = [
    "AdminClient",
    "Consumer",
    "ConsumerRecord",
    "DefaultRecord",
    "IllegalOperation",
    "KafkaError",
    "OffsetAndMetadata",
    "TopicPartition",
]
