"""Exactly-once delete-callback pipeline for ApsaraVideo VOD on Kafka."""
