"""
Whether Kafka lets us in, asked with one connection before anything else is started.

The clients take a wrong password for a broker that is away: they try again, for ever and in many lines, and what they
raise in the end names no cause. So each command asks here first. An unreachable Kafka is not this module's business.
"""

from __future__ import annotations

import asyncio
import ssl

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from pipeline.service.probe import address_of
from pipeline.service.settings import KafkaSettings, SettingsError

ASK_SECONDS_MAX = 5.0  # A broker answers in 0.1 s, and delays a refusal by as much; one that takes longer is not there.


class AccessError(SettingsError):
    """Kafka is there and refuses us, or we refuse it; the message is one line that names the settings to look at."""


async def require(kafka: KafkaSettings) -> None:
    """
    Ask the bootstrap servers whether they let us in.

    Returns after ASK_SECONDS_MAX at most: also if none can be reached, and at once if security_protocol is PLAINTEXT.

    Raises:
        AccessError: none lets us in, and one refuses.
    """
    line = await refusal(kafka)
    if line is not None:
        raise AccessError(line)


def user_of(kafka: KafkaSettings) -> str:
    """Return the name of our user as permissions have it, or what stands for it where a certificate says it."""
    return kafka.username or "(by certificate)" if kafka.security_protocol != "PLAINTEXT" else "ANONYMOUS"


def require_now(kafka: KafkaSettings) -> None:
    """Do the same as `require`, for a program without an event loop."""
    if kafka.security_protocol != "PLAINTEXT":
        asyncio.run(require(kafka))


async def refusal(kafka: KafkaSettings) -> str | None:
    """Return why Kafka does not let us in, in one line; None if it does or cannot be reached."""
    if kafka.security_protocol == "PLAINTEXT":
        return None
    options = kafka.client_options()
    servers = collect_hosts(options.pop("bootstrap_servers"))
    answers = await asyncio.gather(*(_ask(host, port, kafka, options) for host, port, _ in servers))
    refusals = [answer for answer in answers if answer]
    return None if "" in answers or not refusals else refusals[0]


async def _ask(host: str, port: int, kafka: KafkaSettings, options: dict[str, object]) -> str | None:
    """Return "" if the server lets us in, None if it cannot be reached, else its refusal."""
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            connection = await create_conn(host, port, **options)
    except (KafkaError, OSError) as error:
        reason = _reason(error, kafka)
        return reason and f"Kafka at {address_of(host, port)} {reason}"
    closed = connection.close()
    await asyncio.wait([closed], timeout=ASK_SECONDS_MAX)
    return ""


def _reason(error: BaseException, kafka: KafkaSettings) -> str | None:
    """Return why *error* is a refusal; None if it is none."""
    why = None
    cause: BaseException | None = error
    # The broker judges our certificate after the handshake: its alert is then the cause of a lost connection.
    while cause is not None and why is None:
        reason = getattr(cause, "reason", None) or ""
        match cause:
            case SaslAuthenticationFailed():
                why = f"refuses user {kafka.username!r} ({cause.args[0]}): see kafka.username and kafka.password"
            case UnsupportedSaslMechanismError():
                why = f"does not offer {kafka.sasl_mechanism}: see kafka.sasl_mechanism"
            case ssl.SSLCertVerificationError():
                problem = cause.verify_message.rstrip(".")
                why = f"shows a certificate we do not trust ({problem}): see kafka.ca_file and kafka.bootstrap_servers"
            case ssl.SSLError() if "ALERT" in reason:
                why = f"refuses our certificate ({reason}): see kafka.certificate_file and kafka.key_file"
            case ssl.SSLError() if reason == "WRONG_VERSION_NUMBER":
                why = "speaks no TLS: see kafka.security_protocol"
        cause = cause.__cause__
    return why
