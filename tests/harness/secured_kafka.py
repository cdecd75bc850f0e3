"""A real Kafka that lets in only who proves who they are; its certificate authority lives as long as the test."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError

from pipeline.local.kafka import LocalKafka
from tests.harness.ports import free_port
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER = "pipeline"
PASSWORD = "Sesame-4711-password"
KEY_PASSWORD = "Sesame-4712-key-password"
WAYS = ("SCRAM-SHA-512", "PLAIN", "mTLS")

# More server properties, with which our user may do only what is granted.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}

_PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
    "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "listener.name.sasl_ssl.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    ),
    "listener.name.ssl.ssl.client.auth": "required",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
}


def acl(kind: ResourceType, name: str, operation: ACLOperation, *, is_prefix: bool = False) -> ACL:
    """Return a permission of our user's."""
    pattern = ACLResourcePatternType.PREFIXED if is_prefix else ACLResourcePatternType.LITERAL
    return ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name, pattern))


class SecuredKafka:
    """
    A broker with three listeners: plain text for LocalKafka alone, SASL_SSL, and SSL that wants a certificate.

    Args:
        jars: Where Kafka is.
        directory: Gets the broker's data and the PEM files.
        extra: More server properties.
    """

    def __init__(self, jars: Path, directory: Path, *, extra: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._write_certificates()
        port, controller_port, self.sasl_port, self.tls_port = (free_port() for _ in range(4))
        listeners = (
            f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{self.sasl_port},SSL://127.0.0.1:{self.tls_port}"
        )
        self.kafka = LocalKafka(
            jars=jars,
            directory=directory / "kafka",
            port=port,
            controller_port=controller_port,
            extra={
                **_PROPERTIES,
                "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
                "advertised.listeners": listeners,
                "ssl.keystore.location": str(self.file("broker.pem")),
                "ssl.truststore.location": str(self.file("ca.pem")),
                **(extra or {}),
            },
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[SecuredKafka]:
        """Run the broker while the context lasts."""
        with self.kafka:
            admin = KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers)
            try:
                answer = admin.alter_user_scram_credentials(
                    [UserScramCredentialUpsertion(USER, "SCRAM-SHA-512", PASSWORD)]
                )
                assert answer == {USER: None}, answer
                eventually(lambda: _group_problems(admin))
            finally:
                admin.close()
            yield self

    def file(self, name: str) -> Path:
        """Return the path of ca.pem, other-ca.pem, password, and broker, client, stranger .pem and .key."""
        return self.directory / name

    def environ(self, way: str) -> dict[str, str]:
        """Return the variables with which a client is let in: one of WAYS."""
        values = {"security_protocol": "SASL_SSL", "bootstrap_servers": f"127.0.0.1:{self.sasl_port}"}
        if way == "mTLS":
            values = {"security_protocol": "SSL", "bootstrap_servers": f"127.0.0.1:{self.tls_port}"}
            values |= {"certificate_file": str(self.file("client.pem")), "key_file": str(self.file("client.key"))}
            values |= {"key_password": KEY_PASSWORD}
        else:
            values |= {"sasl_mechanism": way, "username": USER, "password_file": str(self.file("password"))}
        values |= {"ca_file": str(self.file("ca.pem"))}
        return {f"VOD_PIPELINE_KAFKA__{key.upper()}": value for key, value in values.items()}

    def _write_certificates(self) -> None:
        authority, other = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(self.file("ca.pem"))
        other.cert_pem.write_to_path(self.file("other-ca.pem"))
        self._write(authority.issue_cert("127.0.0.1"), "broker", NoEncryption())
        self._write(authority.issue_cert("client"), "client", BestAvailableEncryption(KEY_PASSWORD.encode()))
        self._write(other.issue_cert("client"), "stranger", NoEncryption())
        self.file("password").write_text(f"{PASSWORD}\n")
        # Kafka wants key and chain in one file.
        with self.file("broker.pem").open("ab") as broker:
            broker.write(self.file("broker.key").read_bytes())

    def _write(self, issued: trustme.LeafCert, name: str, encryption: KeySerializationEncryption) -> None:
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        # PKCS#8: Kafka reads no other form of key.
        self.file(f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.file(f"{name}.pem").write_bytes(chain)


def _group_problems(admin: KafkaAdminClient) -> list[str]:
    """Have the topic of the groups' offsets made: the first question after a group is answered with an error."""
    try:
        admin.list_group_offsets({"stranger": None})
    except KafkaError as error:
        return [repr(error)]
    return []
