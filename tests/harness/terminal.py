"""A terminal that a command believes to be talking to, and what it writes there."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
from collections.abc import Mapping

ESC = "\x1b"
# What a table or a bar that is drawn in place needs: hide and show the cursor, move it, erase lines.
MOVES = re.compile(r"\x1b\[(\?25[hl]|\d*[ABCDGJK])")
CHUNK_BYTES = 65_536


def run_in_terminal(arguments: list[str], environ: Mapping[str, str], *, interrupt_after: str | None = None) -> str:
    """
    Run a command in a terminal with colours of its own and return all that it wrote, on both of its outputs.

    Args:
        arguments: The command.
        environ: Added to this process's environment, which says nothing of colours.
        interrupt_after: Text after which the command gets Ctrl-C's signal; None: it ends by itself.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    terminal, inside = pty.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as reader,
        subprocess.Popen(
            arguments,
            env={**inherited, "TERM": "xterm-256color", **environ},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        ) as process,
    ):
        os.close(inside)
        written = b""
        try:
            with contextlib.suppress(OSError):  # EIO: the last process that had the terminal open is gone.
                while data := reader.read(CHUNK_BYTES):
                    written += data
                    if interrupt_after is not None and interrupt_after.encode() in written:
                        process.send_signal(signal.SIGINT)
                        interrupt_after = None
        finally:
            process.kill()
    return written.decode(errors="replace")
