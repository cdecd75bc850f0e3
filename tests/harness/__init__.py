"""What the tests on a real Kafka share: a load, worker processes to be hurt, and an independent recount."""
