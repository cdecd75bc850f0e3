"""The security keys: a half-given or useless one, and a file that can't be used, stop the start with one line."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from pipeline.service.settings import BridgeSettings, KafkaSettings, SettingsError, load
from pipeline.service.tls import KafkaSecurity

KAFKA = "VOD_PIPELINE_KAFKA__"
PASSWORD = "Sesame-4711"
SASL = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "USERNAME": "pipeline", "PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, client.pem, client.key, another.key, and text, which is no PEM."""
    directory = tmp_path_factory.mktemp("files")
    authority = trustme.CA()
    client, another = authority.issue_cert("client"), authority.issue_cert("another")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    client.cert_chain_pems[0].write_to_path(directory / "client.pem")
    client.private_key_pem.write_to_path(directory / "client.key")
    another.private_key_pem.write_to_path(directory / "another.key")
    (directory / "text").write_text(PASSWORD)
    return directory


def loaded(files: Path, values: dict[str, str], section: str = KAFKA) -> KafkaSettings:
    """Read settings from the environment; a value that starts with @ is a file of ours."""
    environ = {f"{section}{key}": str(files / value[1:]) if value[0] == "@" else value for key, value in values.items()}
    return load(Path("/dev/null"), environ).kafka


def test_plaintext_is_the_default_and_needs_no_options() -> None:
    assert KafkaSettings().client_options() == {"bootstrap_servers": ["127.0.0.1:9092"]}


def test_sasl_over_tls_becomes_the_options_of_both_clients(files: Path) -> None:
    """Host names are checked: without it, any certificate of the authority would do."""
    options = loaded(files, {**SASL, "CA_FILE": "@ca.pem"}).client_options()
    context = options.pop("ssl_context")

    assert options == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "pipeline",
        "sasl_plain_password": PASSWORD,
    }
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_a_key_that_ends_in_file_is_not_replaced_by_what_the_file_holds(files: Path) -> None:
    """The rule that <KEY>_FILE holds the value of <KEY> is for keys that are no files themselves."""
    names = {"CA_FILE": "@ca.pem", "CERTIFICATE_FILE": "@client.pem", "KEY_FILE": "@client.key"}

    kafka = loaded(files, {"SECURITY_PROTOCOL": "SSL", **names})

    assert (kafka.ca_file, kafka.certificate_file) == (files / "ca.pem", files / "client.pem")
    assert kafka.key_file == files / "client.key"


def test_the_password_can_come_from_a_file(files: Path) -> None:
    rest = {key: value for key, value in SASL.items() if key != "PASSWORD"}

    assert loaded(files, {**rest, "PASSWORD_FILE": "@text"}).password == SecretStr(PASSWORD)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SECURITY_PROTOCOL": "TLS"}, "kafka.security_protocol: Input should be 'PLAINTEXT', 'SSL'"),
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "SASL_SSL needs password, sasl_mechanism, username, too"),
        ({**SASL, "SASL_MECHANISM": "GSSAPI"}, "kafka.sasl_mechanism: Input should be"),
        ({**SASL, "SECURITY_PROTOCOL": "SSL"}, "SSL makes no use of password, sasl_mechanism, username"),
        ({**SASL, "SECURITY_PROTOCOL": "PLAINTEXT"}, "PLAINTEXT makes no use of password, sasl_mechanism, username"),
        ({"CA_FILE": "@ca.pem"}, "PLAINTEXT makes no use of ca_file"),
        ({**SASL, "SECURITY_PROTOCOL": "SASL_PLAINTEXT", "CA_FILE": "@ca.pem"}, "makes no use of ca_file"),
        ({"SECURITY_PROTOCOL": "SSL", "KEY_FILE": "@client.key"}, "certificate_file and key_file need each other"),
        ({"SECURITY_PROTOCOL": "SSL", "KEY_PASSWORD": PASSWORD}, "key_password is given, but no key_file"),
        ({"SECURITY_PROTOCOL": "SSL", "CA_FILE": "@none"}, "none: No such file or directory"),
        ({"SECURITY_PROTOCOL": "SSL", "CA_FILE": "@text"}, "text holds no certificates in PEM format"),
        (
            {"SECURITY_PROTOCOL": "SSL", "CERTIFICATE_FILE": "@client.pem", "KEY_FILE": "@another.key"},
            "are no pair in PEM format",
        ),
    ],
)
def test_what_is_half_given_or_of_no_use_is_refused_in_one_line(
    files: Path, values: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(files, values)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in repr(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"CERTIFICATE_FILE": "@client.pem"}, "bridge: Value error, certificate_file and key_file need each other"),
        ({"CERTIFICATE_FILE": "@text", "KEY_FILE": "@client.key"}, "are no pair in PEM format"),
        ({"CERTIFICATE_FILE": "@client.pem", "KEY_FILE": "@none"}, "key_file: cannot read"),
    ],
)
def test_a_certificate_the_bridge_cannot_use_is_refused(files: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        loaded(files, values, "VOD_PIPELINE_BRIDGE__")


def test_a_bridge_with_a_certificate_has_an_https_url(files: Path) -> None:
    bridge = BridgeSettings(certificate_file=files / "client.pem", key_file=files / "client.key")

    assert (bridge.base_url, BridgeSettings().base_url) == ("https://127.0.0.1:8080", "http://127.0.0.1:8080")


def test_a_refused_model_does_not_say_its_passwords() -> None:
    """Pydantic's own message would hold the whole input, and a traceback shows it."""
    with pytest.raises(ValueError, match="needs sasl_mechanism, username") as caught:
        KafkaSecurity(security_protocol="SASL_SSL", password=SecretStr(PASSWORD), key_password=SecretStr(PASSWORD))

    assert PASSWORD not in str(caught.value)
