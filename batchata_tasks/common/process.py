"""Other processes of this machine."""

from __future__ import annotations

import os


def has_ended(process: int) -> bool:
    """Whether there is no process of this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # somebody else's; or no id at all
        return False
    return False
