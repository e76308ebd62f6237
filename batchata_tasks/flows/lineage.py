"""Lineage: what a run read and wrote, as assets of Prefect.

An asset's key is the address of a folder, a file or a pattern of files, without what may be secret
in it. Of a database that is the name of the variable which has its URL: nothing of that is told.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.assets import Asset, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.forms import DatabaseSource, Form
from batchata_tasks.sources.opening import files_of

if TYPE_CHECKING:
    from batchata_tasks.pipeline.receipt import Receipt

_BAD = re.compile(rf"[{re.escape(''.join(RESTRICTED_ASSET_CHARACTERS))}\s]")
_NO_SCHEME = re.compile(r"[^a-z0-9]+")
_HAS_CONTAINERS = ("abfs", "abfss")  # before the @ of these stands a container, and no user
_MOST_FILES = 10  # paths of a query that are told
_FACTS = ("run_id", "result", "outcomes", "cost_usd", "provider", "model")
_CHANGED = ("carried", "marked", "deleted", "returned", "recovered")  # rows, without a request


def note_lineage(receipt: Receipt, source: str | Form) -> None:
    """Tell the server that a run wrote its dataset from its source, if it wrote anything.

    A rehearsal wrote nothing that anybody may use.
    """
    changed = bool(receipt.outcomes) or any(receipt.plan[name] for name in _CHANGED)
    if receipt.rehearsal or not changed:
        return
    written, known = Asset(key=asset_key(receipt.dataset)), receipt.to_json()

    @materialize(
        written,
        by="batchata",
        name="dataset",
        task_run_name=f"dataset {receipt.name}",
        asset_deps=[Asset(key=key) for key in source_keys(source)],
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def dataset() -> None:
        add_asset_metadata(written, {name: known[name] for name in _FACTS})

    dataset()


def source_keys(source: str | Form) -> list[str]:
    """Return the keys of the assets that a source reads, as far as they can be known."""
    if isinstance(source, DatabaseSource):
        return [f"database://{source.url_env}"]
    try:
        return list(dict.fromkeys(map(asset_key, files_of(source)[:_MOST_FILES])))
    except SourceError:  # a query that can no longer be read
        return []


def asset_key(place: str) -> str:
    """Return the key of a path, a pattern or a URL; users, passwords and signatures are left out.

    Characters that no key may have are underscores; of one that is too long the end is a digest.
    """
    # of a chain such as zip://a.csv::s3://bucket/x.zip the last link is where it lies
    place = place.rpartition("::")[2]
    scheme, separator, rest = place.partition("://")
    scheme = _NO_SCHEME.sub("", scheme.lower())
    if not separator or not scheme:
        # unlike Path.expanduser, this leaves the home folder of nobody (`~x`) as it is
        home = os.path.expanduser(place)  # noqa: PTH111 - see above
        scheme, rest = "file", str(Path(home).absolute())
    elif scheme != "file":
        rest = _without_secrets(scheme, rest)
    key = f"{scheme}://{_BAD.sub('_', rest)}"
    if len(key) <= MAX_ASSET_KEY_LENGTH:
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{key[: MAX_ASSET_KEY_LENGTH - len(digest) - 1]}-{digest}"


def _without_secrets(scheme: str, rest: str) -> str:
    """Return a URL's place without its user, password and query: a password may have a slash."""
    before, at, after = rest.rpartition("@")
    is_container = scheme in _HAS_CONTAINERS and "/" not in before
    if at and (":" in before or ("/" not in before and not is_container)):
        rest = after
    return re.split(r"[?#]", rest, maxsplit=1)[0]
