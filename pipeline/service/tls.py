"""
The settings for TLS and passwords: who we are to Kafka, whom we take for it, and what the bridge shows to its clients.

Whatever is half given or unreadable is refused when the settings are read. Knows no client library.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from pipeline.service.values import Name, Password


class Section(BaseModel):
    """A part of the settings tree."""

    # A refused model holds its input, and with it the passwords: they must not be part of what it says.
    # The text under a key is its description: docs/configuration.md is made of it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class ServerCertificate(Section):
    """What a port shows to speak TLS: PEM files, the certificate with its chain; without both, it speaks plain HTTP."""

    certificate_file: Path | None = None
    """PEM file with the certificate and its chain; the callback port then speaks TLS and nothing else."""
    key_file: Path | None = None
    """PEM file with the key of certificate_file, without a password; each needs the other."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file need each other")
        self.tls_context()
        return self

    def tls_context(self) -> ssl.SSLContext | None:
        """
        Return what the port speaks TLS with, or None: it speaks plain HTTP.

        Raises:
            ValueError: a file is not usable; one line that names the keys.
        """
        if self.certificate_file is None or self.key_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_certificate(context, self.certificate_file, self.key_file)
        return context


class KafkaSecurity(Section):
    """How clients connect to Kafka: encrypted or not, and with what they prove who they are."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SSL and SASL_SSL encrypt; SASL_SSL and SASL_PLAINTEXT use a password."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How the password is proved; SASL_... needs it, any other protocol refuses it."""
    username: Name | None = None
    """Who we are to Kafka; SASL_... needs it."""
    password: Password | None = None
    """The password of username; best from a file."""
    ca_file: Path | None = None
    """PEM file with the authorities that sign the brokers' certificates; unset: those the system trusts."""
    certificate_file: Path | None = None
    """PEM file with our certificate and its chain, for brokers that ask for one."""
    key_file: Path | None = None
    """PEM file with the key of certificate_file; each needs the other."""
    key_password: Password | None = None
    """The password of key_file, if that is encrypted; best from a file."""

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = {key for key in KafkaSecurity.model_fields if getattr(self, key) is not None}
        sasl = {"sasl_mechanism", "username", "password"}
        if self.uses_sasl and not sasl <= given:
            raise ValueError(f"security_protocol {self.security_protocol} needs {_names(sasl - given)}, too")
        idle = (set() if self.uses_sasl else sasl) | (set() if self.uses_tls else _TLS_KEYS)
        # A password that is not used is a mistake, and the connection is less secure than it seems.
        if idle & given:
            raise ValueError(f"security_protocol {self.security_protocol} makes no use of {_names(idle & given)}")
        if len(given & {"certificate_file", "key_file"}) == 1:
            raise ValueError("certificate_file and key_file need each other")
        if self.key_password is not None and self.key_file is None:
            raise ValueError("key_password is given, but no key_file")
        self.connection_options()
        return self

    def connection_options(self) -> dict[str, Any]:
        """
        Return the security options, understood alike by aiokafka 0.14 and kafka-python 3.0; nothing for PLAINTEXT.

        Raises:
            ValueError: a file cannot be used; the message names its key. `load` found that out before.
        """
        if self.security_protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.uses_tls:
            options["ssl_context"] = _client_context(
                self.ca_file, self.certificate_file, self.key_file, self.key_password
            )
        if self.uses_sasl:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password and self.password.get_secret_value()
        return options


_TLS_KEYS = {"ca_file", "certificate_file", "key_file", "key_password"}


class _ClosingAtOnce(ssl.SSLObject):
    """
    Says goodbye without waiting for the other side's, as RFC 8446, 6.1 allows.

    A broker in the middle of a long fetch does not answer it, and uvloop waits 30 s then: so long a consumer took to
    close, and with it a partition to open.
    """

    def unwrap(self) -> None:
        with suppress(ssl.SSLWantReadError):
            super().unwrap()


@lru_cache(maxsize=8)  # Connections are opened on the event loop, which must not wait for a disk.
def _client_context(
    ca_file: Path | None, certificate_file: Path | None, key_file: Path | None, key_password: SecretStr | None
) -> ssl.SSLContext:
    """Trust what *ca_file* signed (None: what the system trusts), and show a certificate if there is one."""
    if ca_file is not None:
        _require_readable("ca_file", ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError):
        raise ValueError(f"ca_file: {ca_file} holds no certificates in PEM format") from None
    context.sslobject_class = _ClosingAtOnce
    if certificate_file is not None and key_file is not None:
        _load_certificate(context, certificate_file, key_file, key_password)
    return context


def _load_certificate(
    context: ssl.SSLContext, certificate_file: Path, key_file: Path, key_password: SecretStr | None = None
) -> None:
    """
    Have *context* show a certificate.

    Raises:
        ValueError: a file is unreadable or not PEM, they do not belong together, or the password is missing or wrong;
            one line that names the keys.
    """
    _require_readable("certificate_file", certificate_file)
    _require_readable("key_file", key_file)
    # Without a password, OpenSSL would ask for one on the terminal; an empty one fails instead.
    password = "" if key_password is None else key_password.get_secret_value()
    try:
        context.load_cert_chain(certificate_file, key_file, password=password)
    except (ssl.SSLError, OSError):
        hint = "key_password is wrong" if password else "the key has a password"
        raise ValueError(
            f"certificate_file {certificate_file} and key_file {key_file} are no pair in PEM format, or {hint}"
        ) from None


def _require_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{key}: cannot read {path}: {error.strerror}") from None


def _names(keys: set[str]) -> str:
    return ", ".join(sorted(keys))
