"""Whether a Prefect server is configured, as far as that is seen without importing Prefect."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

_SET = re.compile(r"^\s*(PREFECT_API_URL|url)\s*=", re.IGNORECASE | re.MULTILINE)
# imported by name: Prefect takes seconds to import
_FLOWS = "batchata_tasks.flows.standing"


def seems_configured() -> bool:
    """Whether the environment, or a file that Prefect reads, seems to name a server.

    Prefect itself knows, but takes a second to import.
    """
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    for file in (profiles, Path("prefect.toml"), Path("pyproject.toml"), Path(".env")):
        with suppress(OSError, RuntimeError):  # the latter if nobody's home is known
            if _SET.search(file.expanduser().read_text(encoding="utf-8", errors="replace")):
                return True
    return False


def flow_runs(works: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what the server knows of flow runs, which are named as the ledger names them.

    That is nothing if there is none, or if it does not answer within two seconds.
    """
    if not works or not seems_configured():
        return {}
    found: dict[str, dict[str, Any]] = import_module(_FLOWS).standing(works)
    return found
