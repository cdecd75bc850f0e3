"""
Break the stages in known ways, one at a time on a copy of the tree, and see that a test fails for each.

``python -m tests.mutants`` prints a table and ends with 1 if a mutant survives. A replacement must match exactly once:
a change of the line it is about has to look at it again. Those that need Kafka run on a real one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RUNS = "500"
SECONDS_MAX = 900
COPIED = ("pipeline", "tests", "config", "pyproject.toml")
LAWS = ("tests/laws",)
UNIT = ("tests/unit/core",)
TRAPS = "tests/integration/worker/test_traps.py::"


class Mutant(NamedTuple):
    """A bug: *before*, in *file*, becomes *after*; *tests* must find it."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = LAWS


PARTITION, TRANSACTIONS = "pipeline/worker/partition.py", "pipeline/kafka/transactions.py"
ACCEPT, REPORT, CLOCK = "pipeline/core/deduplication.py", "pipeline/core/rates.py", "pipeline/core/log_clock.py"
STAGE, FETCHING = "pipeline/worker/accept.py", "pipeline/worker/consumer_thread.py"

MUTANTS = (
    Mutant(
        "the offset is committed before the rows are produced",
        TRANSACTIONS,
        """            written_at = await send(producer, outputs)
            await producer.send_offsets_to_transaction({source: position}, group)
            await producer.commit_transaction()
""",
        """            await producer.send_offsets_to_transaction({source: position}, group)
            await producer.commit_transaction()
            await producer.begin_transaction()
            written_at = await send(producer, outputs)
            await producer.commit_transaction()
""",
    ),
    Mutant(
        "the rows are committed before the offset",
        TRANSACTIONS,
        """            written_at = await send(producer, outputs)
            await producer.send""",
        """            written_at = await send(producer, outputs)
            await producer.commit_transaction()
            await producer.begin_transaction()
            await producer.send""",
    ),
    Mutant("the committed offset is not compared", PARTITION, "if chunk.begin != session.next:", "if False:"),
    Mutant("a gap is ignored", PARTITION, "if chunk.begin != session.next:", "if chunk.begin < session.next:"),
    Mutant(
        "what was read before is read again",
        PARTITION,
        "if chunk.begin != session.next:",
        "if chunk.begin > session.next:",
    ),
    Mutant(
        "no fencing",
        PARTITION,
        'self._open_producer(f"{self._stage.transactional_prefix}{self._number}")',
        'self._open_producer(f"{self._stage.transactional_prefix}{self._number}-{id(self)}")',
    ),
    Mutant(
        "the offset is read before the predecessor is fenced",
        PARTITION,
        """        producer = await self._open_producer(f"{self._stage.transactional_prefix}{self._number}")
        try:
            committed = await self._reader.committed(self._stage.group, self._tp)
""",
        """        committed = await self._reader.committed(self._stage.group, self._tp)
        producer = await self._open_producer(f"{self._stage.transactional_prefix}{self._number}")
        try:
""",
    ),
    Mutant(
        "a broken producer is used again",
        PARTITION,
        """                is_read = True
                await self._drop()
""",
        """                is_read = True
""",
    ),
    Mutant("no going back after a failure", PARTITION, "elif is_read:", "elif False:"),
    Mutant(
        "the next chunk does not wait for the commit",
        PARTITION,
        "            await session.committing\n            session.committing = None\n",
        "            session.committing = None\n",
    ),
    Mutant(
        "a chunk's begin is committed, not its end",
        PARTITION,
        "OffsetAndMetadata(end, output.metadata)",
        "OffsetAndMetadata(end - 1, output.metadata)",
    ),
    Mutant(
        "a count is added, not replaced",
        "pipeline/core/window_counts.py",
        "change = number - self.number(partition, code)",
        "change = number",
    ),
    Mutant(
        "a chunk's count is written, not the sum",
        ACCEPT,
        'b"%d" % number, NO_TIMESTAMP, []))\n    if tally',
        'b"%d" % tally.get((window, code), 1), NO_TIMESTAMP, []))\n    if tally',
    ),
    Mutant(
        "events are forgotten early",
        ACCEPT,
        "    state.forget(state.policy.expiry(state.stream_time))\n",
        "    state.forget(state.policy.expiry(state.stream_time) + state.policy.horizon // 2)\n",
    ),
    Mutant(
        "the restore begins at the stream time",
        STAGE,
        "else expiry if wanted == UNKNOWN else min(expiry, wanted.at)",
        "else state.stream_time",
    ),
    Mutant(
        "the restore takes what is expired for new",
        ACCEPT,
        "            if at > future or at < expiry:\n",
        "            if at > future or at < expiry - policy.window:\n",
    ),
    Mutant("the watermark falls", ACCEPT, "if watermark > state.watermark:", "if watermark != state.watermark:"),
    Mutant(
        "a tick counts without being written",
        ACCEPT,
        "_advance(state, watermark, decisions)",
        "_advance(state, watermark, Decisions())",
    ),
    Mutant("a lost offset is guessed one too far", STAGE, "resume=last + 1, last_body", "resume=last + 2, last_body"),
    Mutant("the totals are not committed", ACCEPT, '"totals": totals}', '"totals": {}}'),
    Mutant("what was accepted last is not named", ACCEPT, '"last_accepted": state.last,', '"last_accepted": UNKNOWN,'),
    Mutant("a clock's jump is believed at once", CLOCK, "self.unconfirmed = timestamp", "self.stream_time = timestamp"),
    Mutant("an unconfirmed stamp is not committed", ACCEPT, "(clock.refused, clock.unconfirmed)", "(clock.refused,)"),
    Mutant("a jump of a clock ends the worker", STAGE, "else state.clock.newest", "else state.stream_time"),
    Mutant("a state that lacks it is taken", STAGE, "        if not is_complete:\n", "        if False:\n"),
    Mutant(
        "the rejection limit's chunk is committed",
        PARTITION,
        "if isinstance(output, Pause):",
        "if False:",
        ("tests/integration/worker/test_poison_kafka.py",),
    ),
    Mutant(
        "raw is read uncommitted",
        FETCHING,
        'isolation_level="read_committed"',
        'isolation_level="read_uncommitted"',
        (f"{TRAPS}test_gaps_inside_a_chunk_are_not_losses",),
    ),
    Mutant(
        "windows end by the worker's clock",
        FETCHING,
        "self.transport.now(), max(",
        "int(time.time() * 1000), max(",
        ("tests/integration/worker/test_timestamps.py::test_a_window_does_not_end_by_the_clock_of_a_worker",),
    ),
    Mutant(
        "a transaction begins before the one before it is marked",
        PARTITION,
        "        await producer.until_marked([rows.tp for rows in output.rows if rows.batches])\n",
        "",
    ),
    Mutant(
        "what hangs is not ended",
        PARTITION,
        "            await producer.resolve(self._reader, self._stage, self._number, committed)\n",
        "",
    ),
    Mutant("what hangs is always committed", TRANSACTIONS, "commit = known[0] if known else True", "commit = True"),
    Mutant(
        "what is refused for good ends the worker in the end",
        PARTITION,
        "if isinstance(error, RefusedError):",
        "if False:",
    ),
    Mutant(
        "a failure keeps the trace that led to it",
        PARTITION,
        "                forget_trace(error)\n",
        "",
    ),
    Mutant(
        "what failed in the background keeps its trace",
        PARTITION,
        "            session.committing.add_done_callback(forget_failure)\n",
        "",
    ),
    Mutant(
        "the subscription follows the actors",
        "pipeline/worker/transport.py",
        "    Conductor = FixedConductor\n",
        "",
        ("tests/unit/worker/test_faust_app.py",),
    ),
)


def copy_to(directory: Path) -> None:
    """Copy what the tests need; Kafka's jars are linked."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    (directory / ".local").symlink_to(ROOT / ".local")


def run(directory: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Run *tests* on the copy; return whether all passed, and the last line pytest printed."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(directory),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAWS_RUNS": RUNS,
        "LAWS_SHRINK": "no",
    }
    is_ours = "import pipeline, sys; sys.exit(not pipeline.__file__.startswith(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", is_ours, str(directory)], check=True, cwd=directory, env=environ)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--no-header", *tests],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ended.returncode == 0, failed[0].split(" - ")[0].rpartition("::")[2] if failed else ""


def mutate(directory: Path, mutant: Mutant) -> None:
    """Put the bug into the copy; RuntimeError if its place is not found exactly once."""
    path = directory / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1:
        raise RuntimeError(f"{mutant.name}: found {text.count(mutant.before)} times in {mutant.file}")
    path.write_text(text.replace(mutant.before, mutant.after))


def main() -> int:
    """Try each mutant; return how many survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only mutants whose name contains this")
    parser.add_argument("--no-kafka", action="store_true", help="leave out those that need a real Kafka")
    arguments = parser.parse_args()
    survivors = 0
    print(f"{'mutant':<52}  caught by")
    for mutant in MUTANTS:
        if arguments.only not in mutant.name or (arguments.no_kafka and "integration" in mutant.tests[0]):
            continue
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            copy_to(directory)
            mutate(directory, mutant)
            began = time.monotonic()
            has_survived, killer = run(directory, mutant.tests if mutant.tests != LAWS else (*UNIT_LAST,))
        survivors += has_survived
        print(
            f"{mutant.name:<52}  {'SURVIVED' if has_survived else killer}  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    print(f"{survivors} survived" if survivors else "all were caught", flush=True)
    return survivors


# The laws first: they are what is on trial. The unit tests know some of these bugs by name.
UNIT_LAST = (*LAWS, *UNIT)

if __name__ == "__main__":
    sys.exit(min(main(), 1))
