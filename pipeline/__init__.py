"""Exactly-once delete-callback pipeline for ApsaraVideo VOD on Kafka."""

__version__ = "0.1.0"
