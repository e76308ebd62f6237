"""The assets of a run: keys that Prefect takes, and that hold no secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prefect.assets import Asset

from batchata_tasks.flows.lineage import asset_key, source_keys
from batchata_tasks.sources.forms import DatabaseSource, SqlSource

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("s3://bucket/tickets/*.parquet", "s3://bucket/tickets/*.parquet"),
        ("S3A://bucket/a b.csv", "s3a://bucket/a_b.csv"),
        ("abfs://box@account/x.csv", "abfs://box@account/x.csv"),
        ("https://host/x.csv?sig=SECRET#part", "https://host/x.csv"),
        ("https://me:SECRET@host/x.csv", "https://host/x.csv"),
        ("sftp://me:SEC/RET@host/x.csv", "sftp://host/x.csv"),
        ("sftp://me:SEC@RET@host/x.csv", "sftp://host/x.csv"),
        ("abfs://me:SECRET@account/x.csv", "abfs://account/x.csv"),
        ("https://SECRET@host/x.csv", "https://host/x.csv"),
        ("zip://a.csv::https://me:SECRET@host/x.zip", "https://host/x.zip"),
        ("s3://bucket/mail@home/x.csv", "s3://bucket/mail@home/x.csv"),
        ("/data/tickets.csv", "file:///data/tickets.csv"),
        ("file:///data/100%.csv", "file:///data/100_.csv"),
    ],
)
def test_a_key_says_where_and_nothing_secret(place: str, key: str) -> None:
    """Users, passwords and signed queries are left out; the rest is the address."""
    assert asset_key(place) == key
    assert Asset(key=key).key == key


def test_a_path_is_told_in_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two folders with a file of one name are two assets."""
    monkeypatch.chdir(tmp_path)
    assert (
        asset_key("tickets.csv")
        == f"file://{re.sub(r'[^/A-Za-z0-9._-]', '_', str(tmp_path))}/tickets.csv"
    )


@example("~0")  # the home folder of nobody
@given(st.text(max_size=700))
def test_prefect_takes_every_key(place: str) -> None:
    """Whatever a path or URL is, its key is valid, and the same each time."""
    key = asset_key(place)
    assert Asset(key=key).key == key == asset_key(place)


def test_of_a_database_the_variable_is_told() -> None:
    """Nothing of the URL is told, nor of the query."""
    assert source_keys(DatabaseSource(url_env="CRM_URL", query="select 1")) == [
        "database://CRM_URL"
    ]


def test_a_query_reads_its_files() -> None:
    """Each file that a query names is an asset, once."""
    query = "select * from '/a/x.csv' union all select * from '/a/x.csv' union all from '/a/y.csv'"
    assert source_keys(SqlSource(sql=query)) == ["file:///a/x.csv", "file:///a/y.csv"]
