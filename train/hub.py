"""The hub of models and data sets: does it answer? Asked before libraries wait for it. Standard library only."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

OFFLINE = "HF_HUB_OFFLINE"
_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")  # of the hub: NAME or OWNER/NAME
LIMIT_S = 15.0  # for its name and a connection


def stay_offline_if_unreachable(names: Sequence[str | None], report: Callable[[str], None]) -> None:
    """Let the libraries use only what they have of the hub, if it does not answer: they would try for minutes.

    names: of what will be read; a folder needs no hub. To be called before they are imported.
    """
    absent = [name for name in names if name and _NAME.fullmatch(name) and not Path(name).exists()]
    if absent and (why := fault()):
        os.environ[OFFLINE] = "1"
        report(f"{absent[0]}: no such folder, and the hub cannot be reached ({why}): what was loaded before is used")


def fault(environ: Mapping[str, str] = os.environ) -> str:
    """Return why the hub of models and data sets cannot be reached, "" if it can, or if nobody is to try."""
    if environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return ""
    address = urlsplit(environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if any(environ.get(name) for each in ("https_proxy", "all_proxy") for name in (each, each.upper())):
        return ""  # the proxy's to say
    if not address.hostname:
        return ""  # no address: the libraries' to say
    result = [f"no answer in {LIMIT_S:g} s"]

    def connect() -> None:
        port = address.port or (80 if address.scheme == "http" else 443)
        try:
            socket.create_connection((address.hostname, port), LIMIT_S).close()
            result[0] = ""
        except (OSError, ValueError) as error:
            result[0] = str(getattr(error, "strerror", "") or error)

    thread = threading.Thread(target=connect, daemon=True)  # a name may be looked up for longer than is waited for
    thread.start()
    thread.join(LIMIT_S)
    return f"{address.hostname}: {result[0]}" if result[0] else ""
