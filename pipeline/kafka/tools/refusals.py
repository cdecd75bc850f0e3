"""What Kafka's errors say, for people."""

from __future__ import annotations

import re

from kafka.errors import KafkaError

CHARACTERS_MAX = 300
# How the client writes an answer down: error_message='...', in double quotes if it holds a single one.
_MESSAGE = re.compile(r"""error_message=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


def cause_of(error: KafkaError) -> str:
    """
    Return in one short line what *error* says.

    The client adds the whole request and the whole answer, which are thousands of characters: of these, the broker's
    own words are taken, each once, or where it has none, what the kind of error means.
    """
    text = " ".join(str(error).split())
    if "failed with response" in text:
        messages = dict.fromkeys(message[1:-1] for message in _MESSAGE.findall(text) if len(message) > 2)
        meaning = " ".join(str(getattr(error, "description", "")).split())
        text = f"{type(error).__name__}: {'; '.join(messages) or meaning}"
    return text if len(text) <= CHARACTERS_MAX else f"{text[:CHARACTERS_MAX]}..."
