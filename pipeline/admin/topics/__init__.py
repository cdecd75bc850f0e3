"""
The topics as Kafka must have them: the `contract` as data, the `diff` between it and a cluster, and how to `apply` it.

What would lose data or break the mapping of keys to partitions is only reported. Source: docs/contract.md, "Topics".
"""
