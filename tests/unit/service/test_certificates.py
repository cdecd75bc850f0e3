"""Until when certificates are valid, as the files in the settings say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pipeline.service.certificates import in_use
from pipeline.service.metrics.process import CertificateUse
from pipeline.service.tls import KafkaSecurity, ServerCertificate

SOON = datetime(2039, 3, 1, tzinfo=UTC)
LATER = datetime(2039, 9, 1, tzinfo=UTC)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA(organization_name="Ours")


def certificate(authority: trustme.CA, directory: Path, *, until: datetime, name: str = "bridge") -> ServerCertificate:
    issued = authority.issue_cert("bridge.example.com", common_name=name, not_after=until)
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    certificate_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key_file.write_bytes(issued.private_key_pem.bytes())
    return ServerCertificate(certificate_file=certificate_file, key_file=key_file)


def common_names(found: dict[tuple[CertificateUse, str], float]) -> dict[tuple[str, str], float]:
    return {(use.value, subject.partition(",")[0]): at for (use, subject), at in found.items()}


def test_without_certificates_there_is_nothing_to_show() -> None:
    assert in_use(KafkaSecurity(), ServerCertificate()) == {}


def test_the_bridges_certificate_is_shown_with_its_end(authority: trustme.CA, tmp_path: Path) -> None:
    found = in_use(KafkaSecurity(), certificate(authority, tmp_path, until=SOON))

    assert common_names(found) == {("bridge", "CN=bridge"): SOON.timestamp()}


def test_what_kafka_is_shown_and_whom_we_trust_there_are_apart(authority: trustme.CA, tmp_path: Path) -> None:
    """Each has to be renewed by another party."""
    client = certificate(authority, tmp_path, until=LATER, name="client")
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    kafka = KafkaSecurity(security_protocol="SSL", ca_file=ca_file, **client.model_dump())

    found = in_use(kafka)

    assert [use for use, _ in found] == [CertificateUse.KAFKA_CLIENT, CertificateUse.KAFKA_CA]
    assert common_names(found)["kafka_client", "CN=client"] == LATER.timestamp()


def self_signed(name: str, *, until: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(datetime(2024, 1, 1, tzinfo=UTC)).not_valid_after(until).sign(key, SHA256())
    return signed.public_bytes(Encoding.PEM)


def test_of_two_with_one_subject_the_later_counts(tmp_path: Path) -> None:
    """While an authority is replaced, its old certificate is still in the file; its end needs no warning."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(self_signed("A", until=LATER) + self_signed("A", until=SOON) + self_signed("B", until=SOON))

    found = in_use(KafkaSecurity(security_protocol="SSL", ca_file=ca_file))

    assert common_names(found) == {("kafka_ca", "CN=A"): LATER.timestamp(), ("kafka_ca", "CN=B"): SOON.timestamp()}
