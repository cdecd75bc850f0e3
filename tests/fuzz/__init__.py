"""Fuzzing of the pure entry points: ``python -m tests.fuzz``."""
