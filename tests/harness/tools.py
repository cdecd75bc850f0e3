"""Where `config/setup.sh tools` put the programs that only tests use."""

from pathlib import Path

TOOLS = Path(__file__).parents[2] / ".local" / "tools" / "usr"
PROMETHEUS = TOOLS / "bin" / "prometheus"
PROMTOOL = TOOLS / "bin" / "promtool"
FAKETIME = TOOLS / "lib" / "x86_64-linux-gnu" / "faketime" / "libfaketimeMT.so.1"
CHROMIUM = "chromium"  # On the path.
DEAD_PROXY = "http://127.0.0.1:9"  # Nothing listens there: no request of ours to ourselves may go by it.
