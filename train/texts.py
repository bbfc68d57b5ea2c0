"""What is wrong with a value that should be a text."""

from __future__ import annotations

from typing import Any

from ringtune.train.json_rows import shown


def what_is_wrong_with(text: Any, name: str) -> str | None:
    """Return why a value cannot be used as a text, None if it can. **Pure.** name: of its column."""
    if text is None:
        return f"there is no text in column {name[:40]!r}"
    if not isinstance(text, str):
        return f"column {name[:40]!r} holds {shown(text)}, not text"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        # A byte that is not UTF-8 was read as a surrogate of its own (PEP 383); others come from JSON's \u escapes.
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character, \\u{code:04x},"
        return f"{what} in column {name[:40]!r} is not UTF-8"
    return None
