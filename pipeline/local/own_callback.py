"""The callback of a bridge on this machine: the one configured, or one of its own, and the shell line that sends it."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path

from pipeline.service.entries import CallbackSettings
from pipeline.service.settings import Settings

DATA = Path(".local")
KEY_FILE = DATA / "auth-key"
CALLBACK_PATH = "/vod/callback"


def callback_of(settings: Settings) -> CallbackSettings:
    """Return the configured callback, or one made for this machine whose key is kept in .local/auth-key."""
    if settings.bridge.callbacks:
        return settings.bridge.callbacks[0]
    url = f"{settings.bridge.base_url}{CALLBACK_PATH}"
    return CallbackSettings.model_validate({"url": url, "auth_keys": (_own_key(),)})


def _own_key() -> str:
    """Return the key that is kept in .local/auth-key; an empty file is one that was being written."""
    KEY_FILE.parent.mkdir(parents=True, exist_ok=True)
    KEY_FILE.touch(mode=0o600)
    key = KEY_FILE.read_text().strip()
    if not key:
        key = f"Aa1{secrets.token_hex(12)}"  # VOD wants upper case, lower case and digits, at most 32.
        KEY_FILE.write_text(key)
    return key


def curl_line(callback: CallbackSettings, settings: Settings) -> str:
    """Return a shell line that sends one signed callback, now and whenever it is pasted."""
    signed = callback.callback
    sign = (
        f"""-H "X-VOD-TIMESTAMP: $T" -H "X-VOD-SIGNATURE: $(printf %s {shlex.quote(signed.url)}"|$T|"""
        f""""{shlex.quote(signed.auth_keys[0])} | md5sum | cut -c1-32)" """
        if signed.auth_keys
        else ""
    )
    body = (
        '{\\"EventType\\":\\"DeleteMediaComplete\\",\\"EventTime\\":\\"$(date -u +%FT%TZ)\\",\\"Status\\":\\"fail\\",'
        '\\"MediaType\\":\\"video\\",\\"DeleteType\\":\\"all\\",\\"MediaId\\":\\"media-$T\\",'
        '\\"ErrorCode\\":\\"InvalidVideo.NotFound\\"}'
    )
    target = shlex.quote(f"{settings.bridge.base_url}{callback.path}")
    return f"""T=$(date +%s); curl -gsw '%{{http_code}}\\n' {sign}-d "{body}" {target}"""
