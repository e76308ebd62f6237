"""What OpenAI's regional hosts add to prices.

Source: https://developers.openai.com/api/docs/guides/data-residency: "Data residency endpoints are
charged a 10% uplift for models released on or after March 5, 2026". That day brought gpt-5.4.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_PERCENT = 10
_REGIONAL = re.compile(r"[a-z0-9-]+\.api\.openai\.com\.?")  # eu, us, au, in, jp …
_VERSION = re.compile(r"(?:ft:)?gpt-(\d+)(?:\.(\d+))?")
_DEARER_SINCE = (5, 4)


def version_of(model: str) -> tuple[int, int]:
    """Return the version in a model's name, such as (5, 4) of gpt-5.4-mini; (0, 0) without one."""
    found = _VERSION.match(model)
    return (0, 0) if found is None else (int(found[1]), int(found[2] or 0))


def surcharge(url: str, model: str) -> int:
    """Return by how many per cent a model's tokens cost more at an address than the list says."""
    regional = _REGIONAL.fullmatch(_host(url)) is not None
    return _PERCENT if regional and version_of(model) >= _DEARER_SINCE else 0


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
