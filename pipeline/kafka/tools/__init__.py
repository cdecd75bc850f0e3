"""
Kafka as the commands need it: `cluster` asks and reads, `raw_writer` publishes to raw.

kafka-python, as nothing here is hot: it reads 150,000 records a second, and writes 20,000.
"""
