"""What `prefect deploy` tells of another project's deployments, and of a server that is down."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from batchata_tasks.flows.deploying import refuse_taken, shown


def test_a_repository_is_told_without_its_token() -> None:
    """Nor does it say anything to the terminal."""
    places = ["https://x-access-token:s3cret@github.com/a/b.git", "/srv/tickets\x1b[2J"]
    assert shown(places).startswith("https://github.com/a/b.git /srv/tickets")
    assert "s3cret" not in shown(places)
    assert "\x1b" not in shown(places)


def test_a_server_that_is_down_is_one_sentence() -> None:
    """Prefect would print a traceback for any other end than SystemExit."""
    url = "http://user:s3cret@127.0.0.1:1/api"
    updates = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(updates), pytest.raises(SystemExit) as raised:
        refuse_taken("tickets", "batchata-origin-0")
    said = str(raised.value)
    assert said.startswith("PREFECT_API_URL: Prefect's server at http://127.0.0.1:1/api cannot")
    assert "nothing was deployed" in said
    assert "s3cret" not in said
