"""The known ways to break the stages, and which tests have to find each: see tests/mutants.py."""

from __future__ import annotations

from typing import NamedTuple

LAWS = ("tests/laws",)
TRAPS = "tests/integration/worker/test_traps.py::"


class Mutant(NamedTuple):
    """A bug: *before*, in *file*, becomes *after*; *tests* must find it."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = LAWS


PARTITION, COMMITTER = "pipeline/worker/partition.py", "pipeline/worker/committer.py"
TRANSACTIONS, TAKEOVER = "pipeline/kafka/transactions.py", "pipeline/kafka/takeover.py"
OPENING = "pipeline/worker/opening.py"
ACCEPT, REPORT, CLOCK = "pipeline/core/deduplication.py", "pipeline/core/rates.py", "pipeline/core/log_clock.py"
METADATA = "pipeline/core/offset_metadata.py"
STAGE, FETCHING = "pipeline/worker/accept.py", "pipeline/worker/consumer_thread.py"

MUTANTS = (
    Mutant(
        "the offset is committed before the rows are produced",
        TRANSACTIONS,
        """            written_at = await self._produce(written)
            await self._ask(self._client.commit_offsets, group, positions)
""",
        """            await self._ask(self._client.commit_offsets, group, positions)
            await self._ask(partial(self._client.end, commit=True))
            if written:
                await self._ask(self._client.add_partitions, [output.tp for output in written])
            await self._ask(self._client.add_group, group)
            written_at = await self._produce(written)
""",
    ),
    Mutant(
        "the rows are committed before the offset",
        TRANSACTIONS,
        """            written_at = await self._produce(written)
""",
        """            written_at = await self._produce(written)
            await self._ask(partial(self._client.end, commit=True))
            await self._ask(self._client.add_group, group)
""",
    ),
    Mutant(
        "what is not answered is followed by a transaction of the same epoch",
        TRANSACTIONS,
        "            while self._is_unanswered:\n",
        "            while False:\n",
    ),
    Mutant(
        "what is asked again counts as answered",
        TRANSACTIONS,
        "        self._is_unanswered |= isinstance(error, UNANSWERED)\n",
        "",
    ),
    Mutant(
        "the offset's marker is not asked for",
        TRANSACTIONS,
        "            await self._ask(self._client.add_group, group)\n            written_at",
        "            written_at",
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
        "anyone may claim a partition",
        OPENING,
        'name = f"{self._stage.transactional_prefix}{self._tp.partition}"',
        'name = f"{self._stage.transactional_prefix}{self._tp.partition}-{id(self)}"',
    ),
    Mutant(
        "who is named is not fenced",
        TAKEOVER,
        "and name not in fenced:",
        "and name not in (name, *fenced):",
    ),
    Mutant(
        "the offset is read before who is named is fenced",
        TAKEOVER,
        """                predecessor = await self._fence(name)
                committed = await lock.position(self._group, tp)
""",
        """                committed = await lock.position(self._group, tp, is_stable=False)
                predecessor = await self._fence(name)
""",
    ),
    Mutant("an offset is read before it is stable", TRANSACTIONS, "is_stable: bool = True", "is_stable: bool = False"),
    Mutant("a partition is not claimed", OPENING, "claimed = await claim.make(self._tp, at, owner)", "claimed = at"),
    Mutant(
        "who commits is not named",
        COMMITTER,
        'owner = "" if self.is_release else self.owner',
        'owner = ""',
    ),
    Mutant(
        "a partition is released while it is committed",
        PARTITION,
        """        if session.committing is not None:
            await session.committing
        offset,""",
        "        offset,",
    ),
    Mutant(
        "a partition is taken back while it is committed",
        COMMITTER,
        "while any(commit.tp == tp for commit in self._under_way):",
        "while False:",
    ),
    Mutant(
        "what failed is followed by a transaction of the same epoch",
        COMMITTER,
        "and not await self._is_sure(self._producer):",
        "and False:",
    ),
    Mutant(
        "what is repeated is not looked up before",
        COMMITTER,
        "                if position == commit.position:\n",
        "                if False:\n",
    ),
    Mutant(
        "a position is not known from the one before it",
        COMMITTER,
        ", transaction=transaction))",
        "))",
    ),
    Mutant("sequence numbers outlive their epoch", TRANSACTIONS, "        self._sequences.clear()\n", ""),
    Mutant(
        "what a fenced owner sent late stays undecided",
        TAKEOVER,
        "        await producer.renew(self._group)\n",
        "",
    ),
    Mutant(
        "the offset does not go back before what hangs is committed",
        TAKEOVER,
        """            await lock.commit([], {tp: OffsetAndMetadata(before, with_owner("", name))}, self._group)
            await lock.position(self._group, tp)  # Until it is marked the other one could overtake it.
""",
        "",
    ),
    Mutant(
        "the offset goes forward before it went back",
        TAKEOVER,
        "            await lock.position(self._group, tp)  # Until it is marked the other one could overtake it.\n",
        "",
    ),
    Mutant(
        "a broken producer is used again",
        PARTITION,
        """                is_read = True
                self._drop()
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
        "Commit(self._tp, end, output.metadata",
        "Commit(self._tp, end - 1, output.metadata",
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
        "_count_row(state, window, code, number))",
        "_count_row(state, window, code, tally.get((window, code), 1)))",
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
    Mutant("what begins anew does not say its counts", METADATA, "policy, is_anew=True)", "policy)"),
    Mutant("its clock is believed as before", REPORT, 'if value.get("anew"):', "if False:"),
    Mutant("what ended does not end once more", REPORT, "self.unended = sorted(self.counts)", "pass"),
    Mutant("a lost offset is guessed one too far", STAGE, "resume=last + 1, last_body", "resume=last + 2, last_body"),
    Mutant("the totals are not committed", METADATA, '{"totals": totals}', '{"totals": {}}'),
    Mutant("what was accepted last is unnamed", METADATA, '"last_accepted": state.last,', '"last_accepted": UNKNOWN,'),
    Mutant("a clock's jump is believed at once", CLOCK, "self.unconfirmed = timestamp", "self.stream_time = timestamp"),
    Mutant("an unconfirmed stamp is not committed", METADATA, "(clock.refused, clock.unconfirmed)", "(clock.refused,)"),
    Mutant("a jump of a clock ends the worker", STAGE, "else (state.clock.newest,", "else (state.stream_time,"),
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
        COMMITTER,
        "            await producer.until_marked(touched)\n",
        "            pass\n",
    ),
    Mutant(
        "what hangs is not ended",
        TAKEOVER,
        "        if not tps:\n",
        "        if True:\n",
    ),
    Mutant("what hangs is always committed", TAKEOVER, "commit = next(", "commit = True or next("),
    Mutant(
        "what is refused for good ends the worker in the end",
        PARTITION,
        "if isinstance(error, RefusedError):",
        "if False:",
    ),
    Mutant("a failure keeps the trace that led to it", PARTITION, "                forget_trace(error)\n", ""),
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
