"""The settings: where they come from, and that a wrong one stops the start with one line that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.core.windows import TimePolicy
from pipeline.service.settings import (
    BridgeSettings,
    CallbackSettings,
    DashboardSettings,
    KafkaSettings,
    Settings,
    SettingsError,
    WorkerSettings,
    by_target,
    load,
)

CONFIG = Path(__file__).parents[3] / "config" / "pipeline.toml"
QUEUE = """[[bridge.mns]]
endpoint = "https://1234.mns.cn-shanghai.aliyuncs.com"
queue = "vod-events"
access_key_id = "LTAI5t"
access_key_secret = "s3cret"
"""
CALLBACK = '[[bridge.callbacks]]\nurl = "https://example.com/vod"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file to be written by the test; empty at first."""
    path = tmp_path / "pipeline.toml"
    path.write_text("")
    return path


def problem(config: Path, text: str = "", **environ: str) -> str:
    """The one line an operator gets."""
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(config, environ)
    return str(caught.value)


def test_the_documented_configuration_equals_the_defaults() -> None:
    """It is the reference an operator reads: every key but the one without a default, and no other value."""
    assert load(CONFIG, {}) == Settings()

    documented = {section: set(keys) for section, keys in _tree(CONFIG).items()}
    known = {section: set(type(getattr(Settings(), section)).model_fields) for section in Settings.model_fields}
    assert {section: known[section] - documented[section] for section in known} == {
        "kafka": {
            "sasl_mechanism",
            "username",
            "password",
            "ca_file",
            "certificate_file",
            "key_file",
            "key_password",
        },
        "bridge": {"certificate_file", "key_file"},
        "worker": {"instance_id"},
        "dashboard": set(),
    }


def _tree(path: Path) -> dict[str, dict[str, object]]:
    import tomllib

    return tomllib.loads(path.read_text())


def test_the_file_overrides_the_defaults(config: Path) -> None:
    """Key by key: what it does not say stays."""
    config.write_text('[kafka]\ntopic_prefix = "x."\n' + CALLBACK)

    settings = load(config, {})

    assert settings.kafka == KafkaSettings(topic_prefix="x.")
    assert settings.bridge.callbacks == (CallbackSettings(url="https://example.com/vod"),)
    assert settings.worker == WorkerSettings()


def test_the_environment_overrides_the_file_key_by_key(config: Path) -> None:
    """A container changes one key of the image's file."""
    config.write_text('[bridge]\nhost = "h"\nport = 1234\n')

    bridge = load(config, {"VOD_PIPELINE_BRIDGE__PORT": "9000"}).bridge

    assert (bridge.host, bridge.port) == ("h", 9000)


def test_variables_of_others_do_not_matter(config: Path) -> None:
    """An environment is full of them."""
    assert load(config, {"PATH": "/bin", "VOD_PIPELINES": "1", "BRIDGE__PORT": "9000"}) == Settings()


@pytest.mark.parametrize(
    "service", ["", "-bridge", "-worker", "-kafka", "-dashboard", "-config", "-bridge-metrics", "-worker-metrics"]
)
def test_what_kubernetes_says_of_a_service_is_not_ours(config: Path, service: str) -> None:
    """
    It puts the address of each Service of the namespace into each container.

    Source: Kubernetes, "Service", "Environment variables", with those of Docker's links that it makes as well.
    """
    name = f"vod-pipeline{service}".upper().replace("-", "_")
    address = "tcp://10.96.14.7:8080"
    injected = {
        f"{name}_SERVICE_HOST": "10.96.14.7",
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_HTTP": "8080",
        f"{name}_PORT": address,
        f"{name}_PORT_8080_TCP": address,
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": "10.96.14.7",
    }

    assert load(config, injected) == Settings()
    assert load(config, injected | {f"{name}_PORT": "udp://[fd00::1]:53"}) == Settings()


def test_the_environment_can_name_the_file(config: Path, tmp_path: Path) -> None:
    """An argument is stronger."""
    config.write_text("[bridge]\nport = 1234\n")
    other = tmp_path / "other.toml"
    other.write_text("[bridge]\nport = 4321\n")
    environ = {"VOD_PIPELINE_CONFIG": str(config)}

    assert load(None, environ).bridge.port == 1234
    assert load(other, environ).bridge.port == 4321


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/pipeline.toml is looked for where the process starts, and may be missing."""
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings()

    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pipeline.toml").write_text("[bridge]\nport = 1234\n")
    assert load(None, {}).bridge.port == 1234


def test_lists_in_the_environment_are_json(config: Path) -> None:
    """Old and new key of a callback, in one variable."""
    value = json.dumps([{"url": "https://example.com/vod", "auth_keys": ["new", "old"]}])

    (callback,) = load(config, {"VOD_PIPELINE_BRIDGE__CALLBACKS": value}).bridge.callbacks

    assert callback.callback.auth_keys == ("new", "old")


def test_a_secret_can_come_from_a_file(config: Path, tmp_path: Path) -> None:
    """As container platforms mount them: with a line break at the end."""
    secret = tmp_path / "secret"
    secret.write_text('[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}]\n')

    (callback,) = load(config, {"VOD_PIPELINE_BRIDGE__CALLBACKS_FILE": str(secret)}).bridge.callbacks

    assert callback.callback.auth_keys == ("s3cret",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[worker]\ninstance_id = ""', "worker.instance_id: String should match pattern '^[A-Za-z0-9._-]+$'"),
        ("nope = 1", "nope: unknown key"),
        ("[nope]", "nope: unknown key"),
        ("[bridge]\nnope = 1", "bridge.nope: unknown key"),
        ("bridge = 5", "bridge: Input should be a valid dictionary or instance of BridgeSettings"),
        ("[bridge]\nport = 0", "bridge.port: Input should be greater than or equal to 1"),
        ("[bridge]\nport = 65536", "bridge.port: Input should be less than or equal to 65535"),
        ("[bridge]\nack_timeout_seconds = 5", "bridge.ack_timeout_seconds: Input should be less than 5"),
        ("[bridge]\nbody_bytes_max = 65537", "bridge.body_bytes_max: Input should be less than or equal to 65536"),
        ('[kafka]\ntopic_prefix = "a b"', "kafka.topic_prefix: String should match pattern '^[A-Za-z0-9._-]*$'"),
        ('[worker]\ngroup = ""', "worker.group: String should match pattern '^[A-Za-z0-9._-]+$'"),
        (CALLBACK + 'auth_key = ["x"]', "bridge.callbacks.0.auth_key: unknown key"),
        (
            '[[bridge.callbacks]]\nurl = "ftp://example.com/vod"',
            "bridge.callbacks.0.url: Value error, not an http or https URL",
        ),
        ('[[bridge.callbacks]]\nurl = "https:///vod"', "bridge.callbacks.0.url: Value error, not an http or https URL"),
        (
            "[worker]\ndedupe_horizon_seconds = 89",
            "worker: Value error, dedupe_horizon_seconds is shorter than window_seconds + allowed_delay_seconds",
        ),
        (
            QUEUE.replace("https", "ftp"),
            "bridge.mns.0.endpoint: Value error, not an http or https URL",
        ),
        (
            QUEUE.replace(".com", ".com/queues/vod-events"),
            "bridge.mns.0.endpoint: Value error, scheme, host and port only: the queue has a key of its own",
        ),
        (
            QUEUE.replace(".com", ".com:70000"),
            "bridge.mns.0.endpoint: Value error, its port is not a number from 1 to 65535",
        ),
        (
            QUEUE.replace("vod-events", "vod/events"),
            "bridge.mns.0.queue: String should match pattern '^[A-Za-z0-9][A-Za-z0-9-]{0,255}$'",
        ),
        (
            QUEUE.replace("s3cret", "s3cret\\r\\nx: y"),
            "bridge.mns.0.access_key_secret: Value error, not printable ASCII without spaces",
        ),
        (QUEUE + 'security_token = ""', "bridge.mns.0.security_token: Value error, empty"),
        (CALLBACK + 'auth_keys = [""]', "bridge.callbacks.0.auth_keys.0: Value error, empty"),
        (
            CALLBACK + 'auth_keys = ["new", "old\\n"]',
            "bridge.callbacks.0.auth_keys.1: Value error, not printable ASCII without spaces",
        ),
        (
            '[kafka]\npassword = " s3cret"',
            "kafka.password: Value error, a blank, a line end or another invisible character at its end or inside",
        ),
        (QUEUE + QUEUE, "bridge.mns: Value error, two entries name the same queue"),
        (
            QUEUE + "[worker]\ndedupe_horizon_seconds = 608399",
            "Value error, worker.dedupe_horizon_seconds is less than 608400 (7 days and an hour), "
            "so what waits in the queues of bridge.mns could expire",
        ),
        ("[bridge]\nnope = 1\nhost = 1", "bridge.host: Input should be a valid string; bridge.nope: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(config: Path, text: str, message: str) -> None:
    """A typo must not become a default that no one chose."""
    assert problem(config, text) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BRIDGE__NOPE", "1", "bridge.nope: unknown key"),
        ("BRIDGE__PORT__NOPE", "1", "bridge.port__nope: unknown key"),
        ("NOPE__A", "1", "VOD_PIPELINE_NOPE__A: no such section; there are kafka, bridge, worker, dashboard"),
        (
            "_BRIDGE__PORT",
            "1",
            "VOD_PIPELINE__BRIDGE__PORT: no such section; there are kafka, bridge, worker, dashboard",
        ),
        ("BRIDGE_PORT", "9000", "VOD_PIPELINE_BRIDGE_PORT: is VOD_PIPELINE_BRIDGE__PORT meant, with two underscores?"),
        (
            "KAFKA_PASSWORD_FILE",
            "/run/secrets/kafka",
            "VOD_PIPELINE_KAFKA_PASSWORD_FILE: is VOD_PIPELINE_KAFKA__PASSWORD_FILE meant, with two underscores?",
        ),
        (
            "KAFKA_CA_FILE",
            "ca.pem",
            "VOD_PIPELINE_KAFKA_CA_FILE: is VOD_PIPELINE_KAFKA__CA_FILE meant, with two underscores?",
        ),
        (
            "BRIDGE_CALLBACKS",
            "[]",
            "VOD_PIPELINE_BRIDGE_CALLBACKS: is VOD_PIPELINE_BRIDGE__CALLBACKS meant, with two underscores?",
        ),
        (
            "BRIDGE__CALLBACKS_FILE",
            "/nonexistent",
            "VOD_PIPELINE_BRIDGE__CALLBACKS_FILE: cannot read /nonexistent: No such file or directory",
        ),
        (
            "BRIDGE__CALLBACKS",
            "https://example.com",
            "VOD_PIPELINE_BRIDGE__CALLBACKS is no JSON (line 1, column 1), as which a list is written there",
        ),
        (
            "DASHBOARD__ALLOWED_HOSTS",
            '["a.example",\n"b.example"',
            "VOD_PIPELINE_DASHBOARD__ALLOWED_HOSTS is no JSON (line 2, column 12), as which a list is written there",
        ),
        ("BRIDGE__CALLBACKS", '{"url": "https://a.example"}', "bridge.callbacks: Input should be a valid tuple"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(config: Path, name: str, value: str, message: str) -> None:
    """The same for the environment, where a typo is easier still."""
    assert problem(config, "", **{f"VOD_PIPELINE_{name}": value}) == message


def test_broken_json_in_a_file_is_refused_by_the_name_of_variable_and_file(config: Path, tmp_path: Path) -> None:
    """A bridge has two that are written by hand."""
    file = tmp_path / "callbacks.json"
    file.write_text('[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}')

    assert problem(config, "", VOD_PIPELINE_BRIDGE__CALLBACKS_FILE=str(file)) == (
        f"VOD_PIPELINE_BRIDGE__CALLBACKS_FILE: {file} holds no JSON (line 1, column 61), "
        "as which a list is written there"
    )


def test_a_variable_and_its_file_are_not_both_given(config: Path, tmp_path: Path) -> None:
    """Which of them counted was a matter of their order."""
    file = tmp_path / "group"
    file.write_text("one")
    environ = {"VOD_PIPELINE_WORKER__GROUP": "two", "VOD_PIPELINE_WORKER__GROUP_FILE": str(file)}

    for order in (environ, dict(reversed(environ.items()))):
        assert problem(config, "", **order) == (
            "VOD_PIPELINE_WORKER__GROUP and VOD_PIPELINE_WORKER__GROUP_FILE: only one of them"
        )


@pytest.mark.parametrize("variable", ["BRIDGE__CALLBACKS_FILE", "WORKER__GROUP_FILE"])
def test_the_mark_that_some_editors_put_first_is_not_part_of_a_file(
    config: Path, tmp_path: Path, variable: str
) -> None:
    """A byte order mark: TOML and JSON were refused for it, and a password had it in front."""
    file = tmp_path / "file"
    file.write_text('[{"url": "https://example.com/vod"}]' if "CALLBACKS" in variable else "group", "utf-8-sig")
    config.write_text("[kafka]\npartitions = 7\n", "utf-8-sig")

    settings = load(config, {f"VOD_PIPELINE_{variable}": str(file)})

    assert settings.kafka.partitions == 7
    assert [settings.worker.group, len(settings.bridge.callbacks)] in (["group", 0], ["vod-pipeline", 1])


def test_an_unreadable_file_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    """Missing, a directory, not TOML: each is the operator's to repair."""
    with pytest.raises(SettingsError, match=r"cannot read the configuration .*missing: No such file or directory"):
        load(tmp_path / "missing", {})
    with pytest.raises(SettingsError, match=r"cannot read the configuration .*: Is a directory"):
        load(tmp_path, {})
    assert f"the configuration {config} is not valid TOML" in problem(config, "[bridge")


def test_a_key_with_a_line_break_is_refused_in_one_line(config: Path) -> None:
    """TOML can quote anything into a key; what reads the log splits it at line breaks."""
    message = problem(config, '[bridge]\n"a\\nb" = 1')

    assert message.startswith("bridge.a")
    assert "\n" not in message


def test_a_file_that_is_not_utf_8_is_refused_by_name(config: Path) -> None:
    """A traceback instead of a line would print what is in the file."""
    config.write_bytes(b'[kafka]\ntopic_prefix = "\xff"\n')

    with pytest.raises(SettingsError, match=config.name):
        load(config, {})


def test_a_secret_file_that_is_not_utf_8_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    """The decoder's own message holds the bytes, which are the secret."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s3cret\xff")

    with pytest.raises(SettingsError, match="VOD_PIPELINE_WORKER__GROUP_FILE") as caught:
        load(config, {"VOD_PIPELINE_WORKER__GROUP_FILE": str(secret)})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "callbacks",
    [
        '[{"url": "https://example.com/vod", "auth_keys": "s3cret"}]',
        '[{"url": "https://example.com/vod", "auth_keys": ["s3cret", 5]}]',
        '[{"url": "https://example.com/vod", "auth_key": ["s3cret"]}]',
        '[{"url": "ftp://example.com/vod", "auth_keys": ["s3cret"]}]',
        '[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}',
        "s3cret",
    ],
)
def test_an_error_never_shows_a_key(config: Path, callbacks: str) -> None:
    """The line goes into logs and tickets."""
    message = problem(config, "", VOD_PIPELINE_BRIDGE__CALLBACKS=callbacks)

    assert "s3cret" not in message
    assert "\n" not in message


BLANK = ["", " ", "\t", "\n", "\u00a0", "\u3000", "\ufeff"]
UNTRIMMED = ["s3cret\n", "s3cret\r\n", " s3cret", "s3cret ", "s3c\nret", "s3c\x00ret", "\ufeffs3cret", "s3cret\u200b"]


def secrets_of(secret: str) -> dict[str, dict[str, object]]:
    """For each setting that is a secret: a tree that is right but for it."""
    queue = {"endpoint": "https://1.mns.cn-shanghai.aliyuncs.com", "queue": "q", "access_key_id": "LTAI5t"}
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": "s3cret"}
    return {
        "kafka.username": {"kafka": sasl | {"username": secret}},
        "kafka.password": {"kafka": sasl | {"password": secret}},
        "kafka.key_password": {"kafka": {"security_protocol": "SSL", "key_password": secret}},
        "bridge.callbacks.0.auth_keys.0": {
            "bridge": {"callbacks": [{"url": "https://a.example/", "auth_keys": [secret]}]}
        },
        "bridge.callbacks.0.auth_keys.1": {
            "bridge": {"callbacks": [{"url": "https://a.example/", "auth_keys": ["Key1", secret]}]}
        },
        "bridge.mns.0.access_key_secret": {"bridge": {"mns": [queue | {"access_key_secret": secret}]}},
        "bridge.mns.0.security_token": {
            "bridge": {"mns": [queue | {"access_key_secret": "s3cret", "security_token": secret}]}
        },
    }


@pytest.mark.parametrize("key", secrets_of(""))
@pytest.mark.parametrize("secret", [*BLANK, *UNTRIMMED])
def test_a_blank_or_untrimmed_secret_is_refused_by_name(key: str, secret: str) -> None:
    """
    A template whose variable is not set leaves an empty AuthKey, and with that anyone can sign.

    A line end from an editor makes a key that VOD does not have.
    """
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(secrets_of(secret)[key])

    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == key
    assert "s3cret" not in str(caught.value)


def test_every_secret_of_the_settings_is_among_those_that_were_tried() -> None:
    """One that is added has to be judged, too."""
    tried = {key.rpartition(".")[2] if not key[-1].isdigit() else "auth_keys" for key in secrets_of("")}

    assert {name for name, kind in _fields(Settings) if "SecretStr" in str(kind)} <= tried


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        yield name, (field.annotation, field.metadata)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind)


@pytest.mark.parametrize("password", ["a password", "pässwörd", "密码", "x"])
def test_a_password_may_have_blanks_inside_and_any_letters(password: str) -> None:
    """Whatever Kafka takes; an AuthKey is VOD's, and has letters and digits only."""
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": password}

    found = KafkaSettings.model_validate(sasl).password

    assert found is not None
    assert found.get_secret_value() == password


@pytest.mark.parametrize("content", ["", "\n", " \r\n"])
def test_a_secret_file_that_holds_nothing_is_refused_by_name(config: Path, tmp_path: Path, content: str) -> None:
    """What wrote it has failed; the value would be the empty one."""
    secret = tmp_path / "secret"
    secret.write_text(content)

    assert problem(config, "", VOD_PIPELINE_KAFKA__PASSWORD_FILE=str(secret)) == (
        f"VOD_PIPELINE_KAFKA__PASSWORD_FILE: {secret} holds nothing"
    )


NO_REQUEST = "a blank, a control character, or a letter that is not percent-encoded: no request has it"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://h.example/cb\n", NO_REQUEST),
        ("https://h.example/cb\r\n", NO_REQUEST),
        (" https://h.example/cb", NO_REQUEST),
        ("https://h.example/cb ", NO_REQUEST),
        ("https://h.example/c b", NO_REQUEST),
        ("https://h.example/c\tb", NO_REQUEST),
        ("https://h.example/c\x7fb", NO_REQUEST),
        ("https://h.example/点播", NO_REQUEST),
        ("https://点播.example/cb", NO_REQUEST),
        ("\ufeffhttps://h.example/cb", NO_REQUEST),
        ("https://h.example/cb#top", "a fragment (#...), which is never sent"),
        ("https://h.example/cb#", "a fragment (#...), which is never sent"),
        ("https://h.example:99999/cb", "its port is not a number from 1 to 65535"),
        ("https://h.example:0/cb", "its port is not a number from 1 to 65535"),
        ("https://h.example:x/cb", "its port is not a number from 1 to 65535"),
        ("https://[::1/cb", "not an http or https URL"),
        ("https://[x]/cb", "not an http or https URL"),
        ("h.example/cb", "not an http or https URL"),
        ("https:/h.example/cb", "not an http or https URL"),
        ("", "not an http or https URL"),
    ],
)
def test_a_url_that_no_request_has_is_refused(url: str, why: str) -> None:
    """
    Each callback would be answered 403 or 404: it is the target that is compared, and the whole string that is signed.

    Most of these come from copy and paste.
    """
    queue = {"queue": "q", "access_key_id": "LTAI5t", "access_key_secret": "s3cret", "endpoint": url}
    for tree in ({"callbacks": [{"url": url}]}, {"mns": [queue]}):
        with pytest.raises(ValidationError) as caught:
            BridgeSettings.model_validate(tree)

        (error,) = caught.value.errors()
        assert error["msg"] == f"Value error, {why}"


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example",
        "http://h.example:8080/%E7%82%B9%E6%92%AD?a=b&c=%20",
        "http://[::1]:8080/cb",
        "https://user:word@h.example/cb",
        "https://xn--5nqv22n.example/~a/(b)/c;d,e'f*g!h$i@j|k{l}m^n`o[p]q",
    ],
)
def test_a_url_that_a_request_can_have_is_taken_to_the_letter(url: str) -> None:
    assert CallbackSettings(url=url).callback.url == url


def test_a_key_is_never_shown() -> None:
    """Not by repr, not by a dump: `config show` prints these."""
    callback = CallbackSettings(url="https://example.com/vod", auth_keys=(SecretStr("s3cret"),))
    settings = Settings(bridge=BridgeSettings(callbacks=(callback,)))

    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert callback.callback.auth_keys == ("s3cret",)


def test_a_queue_needs_a_horizon_of_seven_days_and_an_hour(config: Path) -> None:
    """MNS keeps a message for 7 days at most; without a queue a shorter horizon is no loss."""
    config.write_text(QUEUE + "[worker]\ndedupe_horizon_seconds = 608400")
    assert load(config, {}).worker.dedupe_horizon_seconds == 608_400

    config.write_text("[worker]\ndedupe_horizon_seconds = 608399")
    assert load(config, {}).worker.dedupe_horizon_seconds == 608_399


def test_the_secrets_of_a_queue_can_come_from_a_file_and_are_never_shown(config: Path, tmp_path: Path) -> None:
    """`config show` prints the dump; the STS token is as good as the secret."""
    secret = tmp_path / "secret"
    queue = {
        "endpoint": "http://1234.mns.cn-shanghai-internal.aliyuncs.com/",
        "queue": "vod-events",
        "access_key_id": "STS.NU",
        "access_key_secret": "s3cret",
        "security_token": "t0ken",
    }
    secret.write_text(json.dumps([queue]) + "\n")

    settings = load(config, {"VOD_PIPELINE_BRIDGE__MNS_FILE": str(secret)})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    (entry,) = settings.bridge.mns
    assert entry.endpoint == "http://1234.mns.cn-shanghai-internal.aliyuncs.com"
    assert entry.access_key_secret.get_secret_value() == "s3cret"
    assert entry.security_token is not None
    assert entry.security_token.get_secret_value() == "t0ken"
    assert "s3cret" not in shown
    assert "t0ken" not in shown


def test_callbacks_on_one_path_are_served_by_the_same_target() -> None:
    """VOD signs the whole URL: another domain, or https instead of http, is another signature under the same path."""
    old = CallbackSettings(url="http://old.example.com/vod", auth_keys=(SecretStr("Key1"),))
    new = CallbackSettings(url="https://new.example.com/vod", auth_keys=(SecretStr("Key2"), SecretStr("Key1")))
    other = CallbackSettings(url="https://new.example.com/vod?tenant=7")

    assert by_target(BridgeSettings(callbacks=(old, other, new)).callbacks) == {
        b"/vod": (old.callback, new.callback),
        b"/vod?tenant=7": (other.callback,),
    }


def test_one_url_in_two_entries_is_refused(config: Path) -> None:
    """Keys that rotate belong into one entry: who finds two may take out the wrong one."""
    assert problem(config, CALLBACK + CALLBACK) == (
        "bridge.callbacks: Value error, two entries have the same URL: put the keys of both into one"
    )


def test_an_unsigned_callback_on_the_path_of_a_signed_one_is_refused(config: Path) -> None:
    """It would take what the other refuses."""
    signed = '[[bridge.callbacks]]\nurl = "https://other.example.com/vod"\nauth_keys = ["Key1"]'

    assert problem(config, CALLBACK + signed) == (
        "bridge.callbacks: Value error, of two entries with one path only one has auth_keys: what it refuses, the other"
        " would take"
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com", "/"),
        ("https://example.com/", "/"),
        ("https://example.com/vod", "/vod"),
        ("https://example.com/vod/", "/vod/"),
        ("https://example.com:8443/vod?tenant=1&x=%20", "/vod?tenant=1&x=%20"),
    ],
)
def test_a_callback_is_found_by_the_path_of_its_url(url: str, path: str) -> None:
    """The signed string is the URL as configured: a query and a trailing slash belong to it."""
    callback = CallbackSettings(url=url)

    assert callback.path == path
    assert callback.callback.url == url


@pytest.mark.parametrize(("length", "is_valid"), [(256, True), (257, False)])
def test_a_callback_url_has_at_most_256_characters(length: int, is_valid: bool) -> None:
    """VOD's own limit."""
    url = "https://example.com/" + "v" * (length - 20)
    if is_valid:
        assert len(CallbackSettings(url=url).url) == 256
        return
    with pytest.raises(ValidationError):
        CallbackSettings(url=url)


def test_seconds_become_the_milliseconds_of_the_policy() -> None:
    """Kafka's unit inside, the operator's outside."""
    worker = WorkerSettings(window_seconds=10, dedupe_horizon_seconds=7200, allowed_delay_seconds=5)

    assert worker.policy == TimePolicy(window=10_000, horizon=7_200_000, future=600_000, delay=5_000)
    assert WorkerSettings().policy == TimePolicy()


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "127.0.0.1 ",
        "127.0.0.1\n",
        "127.0.0.1:8080",
        "http://127.0.0.1",
        "[::1]",
        "::1::",
        "*",
        "a b",
        "h/",
        "é.example",
    ],
)
@pytest.mark.parametrize("key", ["bridge.host", "bridge.metrics_host", "worker.metrics_host", "dashboard.host"])
def test_a_host_that_cannot_be_listened_on_is_refused(config: Path, key: str, host: str) -> None:
    """An empty one would be every address of the machine."""
    section, _, name = key.partition(".")

    assert problem(config, f"[{section}]\n{name} = {json.dumps(host)}") == (
        f"{key}: Value error, not a name or an address such as localhost, 127.0.0.1 or ::1"
    )


@pytest.mark.parametrize(
    "host", ["localhost", "192.0.2.1", "::", "::1", "fe80::1%eth0", "bridge-1.my_net.example", "h."]
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert BridgeSettings(host=host, metrics_host=host).host == host


@pytest.mark.parametrize(
    "host",
    [
        "", "dash.example.com:8443", "https://dash.example.com", "*.example.com", "dash.example.com ",
        "dash.example.com.", "dash.example.com/", "[::1]:8083", "[::1", "点播.example", "a,b",
    ],
)  # fmt: skip
def test_an_allowed_host_that_no_browser_sends_is_refused(config: Path, host: str) -> None:
    """The page would be refused under every name."""
    text = f'[dashboard]\nallowed_hosts = ["ops.example", {json.dumps(host)}]'

    assert problem(config, text) == (
        "dashboard.allowed_hosts.1: Value error, not a name or an address alone, as a browser sends it:"
        " no scheme, port, path or wildcard, and xn--... for what is not ASCII"
    )


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("Dash.Example.com", "dash.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "[fd00::1]"),
        ("[FD00:0:0::1]", "[fd00::1]"),
        ("xn--5nqv22n.example", "xn--5nqv22n.example"),
    ],
)
def test_an_allowed_host_is_kept_as_a_browser_sends_it(host: str, sent: str) -> None:
    assert DashboardSettings(allowed_hosts=(host,)).allowed_hosts == (sent,)


@pytest.mark.parametrize(
    ("servers", "number"),
    [
        ("", 1), ("kafka.example.com", 1), ("kafka.example.com:", 1), (":9092", 1), ("::1:9092", 1), ("[::1]", 1),
        ("PLAINTEXT://kafka:9092", 1), ('["kafka:9092"]', 1), ("kafka:0", 1), ("kafka:65536", 1), ("kafka:port", 1),
        ("kafka:9092\n", 1), ("a:1,b", 2), ("a:1,", 2), ("a:1,,b:2", 2), ("a:1;b:2", 1), ("a:1 b:2", 1), ("a:1/", 1),
        ("a:\N{FULLWIDTH DIGIT ONE}", 1),
    ],
)  # fmt: skip
def test_bootstrap_servers_are_whole(config: Path, servers: str, number: int) -> None:
    """Without a port one half of the product took 9092, and the other found no Kafka."""
    assert problem(config, f"[kafka]\nbootstrap_servers = {json.dumps(servers)}") == (
        f"kafka.bootstrap_servers: Value error, number {number} is not host:port, such as kafka-1.example.com:9092"
        " or [::1]:9092; several are separated by commas"
    )


def test_bootstrap_servers_are_separated_by_commas_and_blanks_do_not_matter() -> None:
    """Both clients take a list."""
    several = KafkaSettings(bootstrap_servers=" a.example:1, [::1]:65535 ,10.0.0.1:9092")

    assert several.bootstrap_servers == "a.example:1,[::1]:65535,10.0.0.1:9092"
    assert several.client_options() == {"bootstrap_servers": ["a.example:1", "[::1]:65535", "10.0.0.1:9092"]}


def test_bootstrap_servers_are_a_list_for_the_clients() -> None:
    """Both clients take one."""
    kafka = KafkaSettings(bootstrap_servers="a:1,b:2", topic_prefix="x.")

    assert kafka.client_options() == {"bootstrap_servers": ["a:1", "b:2"]}
    assert kafka.topics.raw == "x.raw"
