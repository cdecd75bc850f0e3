"""docker-compose.yml as data, and its services' exact commands and health checks on this machine, without Docker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
IMAGE_USER = "10001"
# What the container has: no other user, no capability, nothing to gain from a setuid program, nothing to write to.
_CONFINED = ["setpriv", f"--reuid={IMAGE_USER}", f"--regid={IMAGE_USER}", "--clear-groups", "--no-new-privs"]
_CONFINED += ["--inh-caps=-all", "--bounding-set=-all"]
_READ_ONLY = (
    'for place in "$@"; do shift; [ "$place" = -- ] && break; mount --bind "$place" "$place" || exit 99; done; '
    'mount -o remount,ro,bind / || exit 99; exec "$@"'
)


def read() -> dict[str, Any]:
    """Return the file as Compose sees it, but for variables: ${NAME:-default} is what it is by default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree


def can_confine() -> bool:
    """Whether this machine lets us make a file system read-only for a process: as root, outside a container."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or shutil.which("setpriv") is None or unshare is None:
        return False
    done = subprocess.run([unshare, "-m", "mount", "-o", "remount,ro,bind", "/"], check=False, capture_output=True)
    return done.returncode == 0


class Here:
    """What stands on this machine for what the containers have: addresses, paths and programs."""

    def __init__(self, places: Mapping[str, str], *, writable: Sequence[Path] = ()) -> None:
        """
        Args:
            places: What is put in the place of what, in commands, environments and health checks.
            writable: What stands for volumes: all that a confined process can write to.
        """
        self.places = dict(places)
        self.writable = tuple(writable)

    def text(self, text: str) -> str:
        """Return *text* with every place replaced."""
        if not self.places:
            return text
        longest_first = sorted(self.places, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: self.places[found.group()], text)

    def environ(self, service: Mapping[str, Any]) -> dict[str, str]:
        """Return the environment of *service*: that alone, and the path."""
        given = {key: self.text(value) for key, value in service.get("environment", {}).items()}
        return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **given}

    def health(self, service: Mapping[str, Any], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the health check of *service*, within its own timeout."""
        kind, *command = service["healthcheck"]["test"]
        words = [self.text(word) for word in command]
        if kind == "CMD-SHELL":
            words = ["bash", "-c", *words]
        seconds = float(service["healthcheck"]["timeout"].removesuffix("s"))
        # A busy machine may be slower than a server: three times as long.
        return subprocess.run(
            words, env=dict(environ), capture_output=True, text=True, check=False, timeout=3 * seconds, cwd=ROOT
        )


class HostService:
    """A service of ours as a process of this machine."""

    def __init__(self, name: str, here: Here, directory: Path, *, is_confined: bool, **more: str) -> None:
        self.spec = read()["services"][name]
        self.here = here
        self.environ = {**here.environ(self.spec), **more}
        self.log = directory / f"{name}-{id(self)}.log"
        program = [str(Path(sys.executable).parent / "vod-pipeline")]
        self.command = [*program, *map(here.text, self.spec["command"])]
        if is_confined:
            places = map(str, here.writable)
            confined = ["unshare", "-m", "sh", "-c", _READ_ONLY, "sh", *places, "--", *_CONFINED]
            self.command = [*confined, *self.command]
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command, env=self.environ, capture_output=True, text=True, check=False, timeout=90, cwd="/"
        )

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environ, stdout=log, stderr=log, cwd="/")

    def health(self) -> list[str]:
        """Return what its health check complains about."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        done = self.here.health(self.spec, self.environ)
        return [] if done.returncode == 0 else [done.stdout + done.stderr]

    def stop(self) -> int:
        """End it as Docker does: SIGTERM, and no longer than its grace period."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(float(self.spec["stop_grace_period"].removesuffix("s")))

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
