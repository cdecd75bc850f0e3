"""`make generate`: write every file that code writes, and name those that changed."""

from __future__ import annotations

from tests.generated import FILES, ROOT

for name, text_of in FILES.items():
    path, text = ROOT / name, text_of()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(name)
