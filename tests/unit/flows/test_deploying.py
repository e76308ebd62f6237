"""What `prefect deploy` tells of another project's deployments."""

from __future__ import annotations

from batchata_tasks.flows.deploying import shown


def test_a_repository_is_told_without_its_token() -> None:
    """Nor does it say anything to the terminal."""
    places = ["https://x-access-token:s3cret@github.com/a/b.git", "/srv/tickets\x1b[2J"]
    assert shown(places).startswith("https://github.com/a/b.git /srv/tickets")
    assert "s3cret" not in shown(places)
    assert "\x1b" not in shown(places)
