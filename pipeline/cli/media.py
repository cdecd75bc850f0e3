"""The commands that say what became of media: of one, of all that failed, of those that an owner deleted."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.admin import media, reconciliation
from pipeline.admin.media import MediaError
from pipeline.admin.reconciliation import MediaAnswer, Standing
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Bar, Config, err, second_of, time_of
from pipeline.service import settings as configuration
from pipeline.service.plain_text import counted

Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Only what has this EventTime, or reached raw at this time, or later: ISO 8601 (UTC), or -2h."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON object a line, for machines.")]


def find(
    media_id: Annotated[str, typer.Argument(help="The MediaId.", metavar="MEDIA_ID")],
    since: Since = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """
    Show every record of a media in raw, accepted and rejected, with what was decided and why. Exit code 1 if there is
    none.

    Only the partition of the id is read. A callback whose body had no MediaId that could be read is in `rejected list`.

    Example: vod-pipeline find 93ab850b4f6f44eab54b6e91d24d81d4 --since -7d
    """
    try:
        key = media.encoded(media_id)
    except ValueError as error:
        raise typer.BadParameter(f"MEDIA_ID: {error}") from error
    since_ms, kafka = time_of(since, "--since"), configuration.load(config).kafka
    with Bar("records") as bar:
        found = media.find(kafka, key, since_ms=since_ms, progress=bar.show)
        if not bar.print_lines(_found(each, as_json=as_json) for each in found):
            raise MediaError(f"no topic holds a record of {media_id}{' in that time' if since else ''}")


def failures(
    code: Annotated[str | None, typer.Option(help="Only those with this ErrorCode.")] = None,
    since: Since = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """
    Show which media failed to be deleted, when (EventTime), and with which ErrorCode and ErrorMessage.

    A partition after the other, each in the order the failures were accepted; `sort` orders them by time.

    Example: vod-pipeline failures --code InternalError --since -1d | sort
    """
    since_ms, kafka = time_of(since, "--since"), configuration.load(config).kafka
    with Bar("accepted records") as bar:
        failed = media.failures(kafka, since_ms=since_ms, code=code, progress=bar.show)
        if not bar.print_lines(_failure(each, as_json=as_json) for each in failed):
            err.print("no failures")


def reconcile(
    ids: Annotated[Path, typer.Option(help="A file of the MediaIds that were deleted, one a line, at most 1,000,000.")],
    since: Since = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """
    Say for each id that an owner deleted: done, failed with which ErrorCode, rejected for which reason, undecided (the
    worker has not come to it), or no_callback. Exit code 1 if any has no outcome, that is one of the last two.

    An acceptance wins over a rejection of the same id, and of several of a kind the newest counts. The topics hold 30
    days.

    Example: vod-pipeline reconcile --ids deleted.txt --since -7d
    """
    since_ms, settings = time_of(since, "--since"), configuration.load(config)
    wanted = reconciliation.read_ids(ids)
    counts: Counter[MediaAnswer] = Counter()

    def lines() -> Iterator[str]:
        for media_id, standing in reconciliation.answers(wanted):
            counts[standing.answer] += 1
            yield _answer(media_id, standing, as_json=as_json)

    with Bar("records") as bar:
        reconciliation.reconcile(settings, wanted, since_ms=since_ms, progress=bar.show)
        total = bar.print_lines(lines())
    said = ", ".join(f"{counts[answer]:,} {answer}" for answer in MediaAnswer if counts[answer])
    err.print(f"{counted(total, 'id')}: {said}")
    if any(answer.is_missing for answer in counts):
        sys.exit(FAILURE_EXIT_CODE)


def _found(found: media.Found, *, as_json: bool) -> str:
    place = {"topic": found.topic, "partition": found.partition, "offset": found.offset, "time": second_of(found.at_ms)}
    if as_json:
        return json.dumps({**place, **found.says})
    says = "  ".join(f"{name}={value}" for name, value in found.says.items())
    return f"{found.topic}[{found.partition}]  {found.offset}  {second_of(found.at_ms)}  {says}"


def _failure(failure: media.Failure, *, as_json: bool) -> str:
    fields: dict[str, Any] = {
        "time": second_of(failure.at_ms),
        "error_code": failure.code,
        "media_id": failure.media_id,
        "media_type": failure.media_type,
        "delete_type": failure.delete_type,
        "error_message": failure.message,
    }
    if as_json:
        return json.dumps({**fields, "partition": failure.partition, "offset": failure.offset})
    return "  ".join(fields.values())


def _answer(media_id: str, standing: Standing, *, as_json: bool) -> str:
    when = None if standing.answer == MediaAnswer.NO_CALLBACK else second_of(standing.at_ms)
    if not as_json:
        return "  ".join(filter(None, (media_id, standing.answer, standing.why, when)))
    why = {MediaAnswer.FAILED: {"error_code": standing.why}, MediaAnswer.REJECTED: {"reason": standing.why}}
    return json.dumps({"media_id": media_id, "answer": standing.answer, **why.get(standing.answer, {}), "time": when})
