"""
Kafka as this product uses it: the room that knows its clients, and lists what is used of their insides.

Beside it only the worker's adapter to Faust does (transport, consumer_thread, fetched). The values that other rooms
handle, such as a partition's name, are the client's and exported here.
"""

from aiokafka import AIOKafkaConsumer as Consumer
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient as AdminClient
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecord
from aiokafka.structs import OffsetAndMetadata

__all__ = [
    "AdminClient",
    "Consumer",
    "ConsumerRecord",
    "DefaultRecord",
    "KafkaError",
    "OffsetAndMetadata",
    "TopicPartition",
]
