"""What an operator is answered for a wrong setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.service.settings import SettingsError, load

QUEUE = """[[bridge.mns]]
endpoint = "https://1234.mns.cn-shanghai.aliyuncs.com"
queue = "vod-events"
access_key_id = "LTAI5t"
access_key_secret = "s3cret"
"""
CALLBACK = '[[bridge.callbacks]]\nurl = "https://example.com/vod"\n'


def problem(config: Path, text: str = "", **environ: str) -> str:
    """The one line an operator gets."""
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(config, environ)
    return str(caught.value)
