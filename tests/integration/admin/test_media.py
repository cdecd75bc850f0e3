"""What became of media, by the three commands that say it, on what a real worker decided."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaProducer

import pipeline
from pipeline.admin.topics.apply import reconcile as make_topics
from pipeline.core.contract import HEADER_DECISION, pack_decision
from pipeline.kafka.murmur2 import partitions_of
from tests.builders import body, own_settings
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pipeline.core.contract import Topics
    from pipeline.local.kafka import LocalKafka
    from pipeline.service.settings import Settings

NOW = datetime.now(UTC)
COMMAND_SECONDS_MAX = 60
MESSAGE = "The video\nis gone: 視頻"


def ago(**distance: int) -> str:
    return (NOW - timedelta(**distance)).strftime("%Y-%m-%dT%H:%M:%SZ")


def failed(media_id: str, at: str, code: str, message: str = MESSAGE) -> bytes:
    return body(media_id, at, Status="fail", ErrorCode=code, ErrorMessage=message)


OLD, NEW = ago(hours=30), ago(hours=1)
BODIES = [
    ("done", body("done", OLD)),
    ("failed", failed("failed", NEW, "InternalError")),
    ("failed, then done", body("failed, then done", NEW)),
    ("failed, then done", failed("failed, then done", OLD, "Forbidden")),  # VOD's order is not that of arrival.
    ("done", body("done", OLD)),
    ("done", body("done", OLD, DeleteType="mezzanine")),
    ("rejected", body("rejected", NEW, Status="perhaps")),
    ("no body", b"no JSON"),
    ("transcoded", body("transcoded", NEW, EventType="TranscodeComplete")),
]


class Run(NamedTuple):
    """A command that ended."""

    code: int
    lines: list[str]
    error: str


class Pipeline(NamedTuple):
    """Topics in which a worker decided on BODIES; one callback more waits in raw."""

    settings: Settings
    directory: Path

    @property
    def topics(self) -> Topics:
        return self.settings.kafka.topics

    def run(self, *arguments: str, **environ: str) -> Run:
        kafka = self.settings.kafka
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env={
                "PATH": "",
                "PYTHONPATH": str(Path(pipeline.__file__).parents[1]),
                "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
                "VOD_PIPELINE_WORKER__GROUP": self.settings.worker.group,
                **environ,
            },
            capture_output=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
            encoding="utf-8",
        )
        return Run(done.returncode, done.stdout.splitlines(), done.stderr)

    def reconcile(self, *ids: str, options: tuple[str, ...] = ()) -> Run:
        file = self.directory / "ids.txt"
        file.write_text("\ufeff" + "".join(f"{each}\r\n" for each in ids), encoding="utf-8")
        return self.run("reconcile", "--ids", str(file), *options)


def write_raw(settings: Settings, bodies: list[tuple[str, bytes]]) -> None:
    producer = KafkaProducer(**settings.kafka.client_options())
    headers = [("source", b"http"), ("entry", b"shanghai")]
    for media_id, value in bodies:
        producer.send(settings.kafka.topics.raw, value=value, key=media_id.encode(), headers=headers)
    producer.flush()
    producer.close()


def write_rejected(settings: Settings, media_id: str) -> None:
    """Leave in rejected what outlives its raw record."""
    producer = KafkaProducer(**settings.kafka.client_options())
    producer.send(
        settings.kafka.topics.rejected,
        body(media_id, NEW),
        key=b"0:999",
        partition=partitions_of([media_id.encode()], 4)[0],
        headers=[("reason", b"event_time_expired"), ("detail", b"why")],
    )
    producer.close()


async def write_aborted(settings: Settings, media_id: bytes) -> None:
    """Leave in accepted what a worker that was fenced leaves there."""
    producer = AIOKafkaProducer(**settings.kafka.client_options(), transactional_id=uuid.uuid4().hex)
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(
            settings.kafka.topics.accepted,
            body(media_id.decode(), NEW),
            key=media_id,
            partition=partitions_of([media_id], settings.kafka.partitions)[0],
            headers=[(HEADER_DECISION, pack_decision(999, 0))],
        )
        await producer.abort_transaction()
    finally:
        await producer.stop()


@pytest.fixture(scope="module")
def decided(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    directory, settings = tmp_path_factory.mktemp("media"), own_settings(kafka.bootstrap_servers)
    make_topics(settings)
    write_raw(settings, BODIES)
    with WorkerProcess(settings, directory) as worker:
        worker.wait_until_working(records=len(BODIES), seconds=120)
        assert worker.terminate() == 0
    write_raw(settings, [("waiting", body("waiting", NEW)), ("done", body("done", OLD))])
    asyncio.run(write_aborted(settings, b"aborted"))
    write_rejected(settings, "raw is gone")
    return Pipeline(settings, directory)


def test_find_shows_every_record_of_an_id_with_what_was_decided_and_why(decided: Pipeline) -> None:
    run = decided.run("find", "done", "--json")
    found = [json.loads(line) for line in run.lines]
    (partition,) = {record["partition"] for record in found}
    raw = [record for record in found if record["topic"] == decided.topics.raw]
    (accepted,) = (record for record in found if record["topic"] == decided.topics.accepted)
    (rejected,) = (record for record in found if record["topic"] == decided.topics.rejected)

    assert (run.code, run.error) == (0, "")
    assert partition == partitions_of([b"done"], 4)[0]
    assert [(record["source"], record["entry"]) for record in raw] == [("http", "shanghai")] * 4
    assert (accepted["time"], accepted["outcome"], accepted["raw_offset"]) == (OLD, "done", raw[0]["offset"])
    assert (rejected["outcome"], rejected["reason"]) == ("rejected", "conflict")
    assert rejected["detail"] == f"another event of this MediaId at {OLD} is known"
    assert (rejected["entry"], rejected["id"]) == ("shanghai", f"{partition}:{raw[2]['offset']}")


def test_find_shows_a_line_for_people(decided: Pipeline) -> None:
    place = f"{decided.topics.accepted}[{partitions_of([b'failed'], 4)[0]}]  "
    (accepted,) = (line for line in decided.run("find", "failed").lines if line.startswith(place))

    assert f"  {NEW}  entry=shanghai  raw_offset=" in accepted
    assert accepted.endswith("  outcome=failed  error_code=InternalError  error_message=The video\\nis gone: 視頻")


def test_find_has_a_rejection_whose_body_names_no_id_by_its_raw_record(decided: Pipeline) -> None:
    run = decided.run("find", "no body", "--json")

    assert [json.loads(line).get("reason") for line in run.lines] == [None, "invalid_json"]


def test_find_has_a_rejection_whose_raw_record_is_gone_by_its_body(decided: Pipeline) -> None:
    (line,) = decided.run("find", "raw is gone").lines

    assert line.endswith("Z  id=0:999  outcome=rejected  reason=event_time_expired  detail=why")


@pytest.mark.parametrize(
    ("media_id", "since", "topics"),
    [
        ("done", "-2h", {"raw", "rejected"}),
        ("done", "-31h", {"raw", "accepted", "rejected"}),
        ("failed", NEW, {"raw", "accepted"}),
    ],
    ids=["two hours", "older", "a time"],
)
def test_find_reads_from_a_time_on(decided: Pipeline, media_id: str, since: str, topics: set[str]) -> None:
    """EventTime in accepted, arrival in the others."""
    run = decided.run("find", media_id, "--since", since, "--json")

    assert {json.loads(line)["topic"].rpartition(".")[2] for line in run.lines} == topics


@pytest.mark.parametrize("media_id", ["nothing", "aborted"])
def test_find_says_that_there_is_nothing_of_an_id(decided: Pipeline, media_id: str) -> None:
    run = decided.run("find", media_id)

    assert (run.code, run.lines, run.error) == (1, [], f"error: no topic holds a record of {media_id}\n")


def test_failures_say_which_media_when_and_why(decided: Pipeline) -> None:
    run = decided.run("failures")
    of_one = decided.run("failures", "--code", "InternalError", "--json")
    of_late = decided.run("failures", "--since", "-2h", "--json")
    none = decided.run("failures", "--code", "Other")

    assert sorted(run.lines) == [
        f"{OLD}  Forbidden  failed, then done  video  all  The video\\nis gone: 視頻",
        f"{NEW}  InternalError  failed  video  all  The video\\nis gone: 視頻",
    ]
    assert of_one.lines == of_late.lines
    (line,) = of_one.lines
    failure = json.loads(line)
    assert failure.pop("partition") == partitions_of([b"failed"], 4)[0]
    assert failure.pop("offset") >= 0
    assert failure == {
        "time": NEW,
        "error_code": "InternalError",
        "media_id": "failed",
        "media_type": "video",
        "delete_type": "all",
        "error_message": MESSAGE,
    }
    assert (none.code, none.lines, none.error) == (0, [], "no failures\n")


def test_reconcile_says_of_each_id_what_became_of_it(decided: Pipeline) -> None:
    """In the file's order; what was aborted counts for nothing, and an acceptance for more than a rejection."""
    run = decided.reconcile(
        "waiting", "failed", "done", "aborted", "failed, then done", "rejected", "transcoded", "done"
    )

    ends = [line.removesuffix("Z")[:-19] for line in run.lines]
    assert ends[:3] == ["waiting  undecided  ", "failed  failed  InternalError  ", "done  done  "]
    assert run.lines[3] == "aborted  no_callback"
    assert run.lines[4] == f"failed, then done  done  {NEW}"
    assert ends[5] == "rejected  rejected  invalid_field  "
    assert run.lines[6:] == ["transcoded  no_callback"]  # The worker has seen its callback, of another type.
    assert run.error == "7 ids: 2 done, 1 failed, 1 rejected, 1 undecided, 2 no_callback\n"
    assert run.code == 1


def test_reconcile_is_content_if_each_id_has_an_outcome(decided: Pipeline) -> None:
    run = decided.reconcile("failed", "rejected", "done", options=("--json",))
    rows = [json.loads(line) for line in run.lines]

    assert run.code == 0
    assert rows[0] == {"media_id": "failed", "answer": "failed", "error_code": "InternalError", "time": NEW}
    assert (rows[1]["answer"], rows[1]["reason"]) == ("rejected", "invalid_field")
    assert rows[2] == {"media_id": "done", "answer": "done", "time": OLD}


@pytest.mark.parametrize("media_id", ["waiting", "aborted"])
def test_reconcile_ends_with_1_if_an_id_has_no_outcome(decided: Pipeline, media_id: str) -> None:
    assert decided.reconcile(media_id).code == 1


def test_reconcile_leaves_out_what_happened_before(decided: Pipeline) -> None:
    """The acceptance, and not the conflict that came with it: it counts for want of another."""
    run = decided.reconcile("done", options=("--since", "-2h", "--json"))

    assert json.loads(run.lines[0])["answer"] == "rejected"


def test_reconcile_names_the_line_that_is_no_id(decided: Pipeline) -> None:
    run = decided.reconcile("done", "")

    assert (run.code, run.lines) == (2, [])
    assert run.error.endswith("ids.txt, line 2: blank\n")


def test_a_worker_that_never_committed_has_everything_to_decide(decided: Pipeline) -> None:
    file = decided.directory / "one.txt"
    file.write_text("waiting\nno body\n")

    run = decided.run("reconcile", "--ids", str(file), VOD_PIPELINE_WORKER__GROUP=uuid.uuid4().hex)

    assert [line.split("  ")[1] for line in run.lines] == ["undecided", "undecided"]


def test_topics_that_are_not_those_of_the_settings_are_named(decided: Pipeline) -> None:
    for command in (("find", "done"), ("failures",)):
        run = decided.run(*command, VOD_PIPELINE_KAFKA__PARTITIONS="3")

        assert run.code == 1
        assert "has 4 partitions, and kafka.partitions is 3" in run.error
