"""Until when the certificates named in the settings are valid. Whether they are of use, `security` has found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.service.metrics.process import CertificateUse
from pipeline.service.tls import KafkaSecurity, ServerCertificate


def in_use(kafka: KafkaSecurity, server: ServerCertificate | None = None) -> dict[tuple[CertificateUse, str], float]:
    """
    Return until when each configured certificate is valid, authorities and chains included.

    Args:
        kafka: Our certificate to Kafka, and the authorities we trust there; those of the system are not looked at.
        server: What a port of ours shows.

    Returns:
        Seconds since the epoch, by use and subject. The later of two with one subject, which replaces the other.
    """
    found: dict[tuple[CertificateUse, str], float] = {}
    for use, path in (
        (CertificateUse.BRIDGE, server.certificate_file if server else None),
        (CertificateUse.KAFKA_CLIENT, kafka.certificate_file),
        (CertificateUse.KAFKA_CA, kafka.ca_file),
    ):
        for subject, not_after in _validity(path) if path else ():
            found[use, subject] = max(not_after, found.get((use, subject), 0.0))
    return found


def _validity(path: Path) -> Iterator[tuple[str, float]]:
    from cryptography import x509  # noqa: PLC0415  # Large, and only TLS needs it.

    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):  # OpenSSL reads it (`security` saw to that), so it works: only its age is not shown.
        return
    for certificate in certificates:
        yield certificate.subject.rfc4514_string(), certificate.not_valid_after_utc.timestamp()
