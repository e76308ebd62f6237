"""How a run is shown on Prefect's server while it works."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from batchata_tasks.flows import progress as shown
from batchata_tasks.flows.progress import done_share, page, shown_progress
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.progress.snapshot import BatchView, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable


def batch(number: int, state: str = "submitted", status: str | None = None) -> BatchView:
    return BatchView(
        chunk_id=f"c{number}",
        number=number,
        batch_id=f"msgbatch_{number}",
        provider="anthropic",
        model="claude-haiku-5-5",
        jobs=10,
        state=state,
        status=status,
        sent_at=1_800_000_000.0,
    )


def snapshot(*batches: BatchView) -> Snapshot:
    return Snapshot(
        run_id="r",
        total=30,
        landed=20,
        completed=18,
        failed=2,
        outcomes={"succeeded": 18, "refused": 2},
        batches=batches,
        cost_usd=0.25,
        reserved_usd=0.125,
        cost_limit_usd=1.0,
        errors={"refused: no ![x](https://x.de/p.png)": 2},
    )


def test_a_page_tells_rows_money_and_batches() -> None:
    """By state, against the limit, and with what the provider says of each batch, since when."""
    text = page("a_table", snapshot(batch(1, "landed", "ended"), batch(2, status="in_progress")))
    assert text == (
        "# a_table\n\n"
        "| | |\n|---|---|\n"
        "| Requests | 20 of 30 landed |\n"
        "| Outcomes | 18 succeeded, 2 refused |\n"
        "| Batches | 1 landed, 1 running |\n"
        "| Cost | $0.2500 of $1.00 spent, $0.1250 reserved |\n"
        r"| Failed | 2 x refused: no !\[x\](https\://x.de/p.png) |" + "\n\n"
        "| Batch | Requests | Done | State | Sent (UTC) | Model | Batch id |\n"
        "|---|---|---|---|---|---|---|\n"
        "| 2 | 10 | | running | 2027-01-15 08:00:00 | claude-haiku-5-5 | msgbatch_2 |\n"
        "| 1 | 10 | | landed | 2027-01-15 08:00:00 | claude-haiku-5-5 | msgbatch_1 |\n"
    )


def test_a_page_is_bounded() -> None:
    """Of a thousand batches fifty are listed, those first that somebody may have to look at."""
    batches = [batch(number, "landed") for number in range(1, 1000)]
    text = page("table", snapshot(*batches, batch(1000, "overdue")))
    _, _, listed = text.partition("|---|---|---|---|---|---|---|\n")
    rows, _, more = listed.partition("\n\n")
    assert rows.count("\n") == 49
    assert rows.startswith("| 1,000 | 10 | | overdue |")
    assert more == "and 950 more batches\n"


def test_what_a_provider_says_is_no_markdown() -> None:
    """A status that nobody knows is shown as it is."""
    assert r"| \<b\> |" in page("table", snapshot(batch(1, status="<b>")))


def test_rows_that_are_tried_again_are_not_done() -> None:
    """A bar is not full while a round is under way that may change how rows ended."""
    again = replace(batch(4), round=2)
    assert done_share(snapshot()) == pytest.approx(20 / 30)
    assert done_share(snapshot(again)) == pytest.approx(10 / 30)
    assert done_share(snapshot(replace(again, state="landed"))) == pytest.approx(20 / 30)


def test_a_bar_tells_how_rows_ended() -> None:
    """A bar that is full is no success if rows failed, or were cancelled."""
    told = shown._bar(snapshot()).description
    assert told == "20 of 30 rows landed: 18 succeeded, 2 refused"
    assert shown._bar(Snapshot(total=3, landed=3)).description == "3 of 3 rows landed"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Return a function that shows a run on a server until it was looked at so many times."""
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid4()))
    monkeypatch.setattr(shown, "_EVERY", 0.01)
    monkeypatch.setattr(shown, "_TIMEOUT", 600.0)
    monkeypatch.setattr(shown, "_LAST", 0.01)

    def follow(url: str, times: int) -> None:
        looks, enough = list[Snapshot](), threading.Event()

        class Followed(LineProgress):
            def look(self) -> Snapshot:
                looks.append(snapshot(batch(len(looks))))
                if len(looks) >= times:
                    enough.set()
                return looks[-1]

        updates = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(updates), shown_progress(Followed(lambda _text: None), "table"):
            assert enough.wait(60)

    return follow


def test_a_server_that_is_silent_holds_nothing_up(looked: Callable[[str, int], None]) -> None:
    """The end of a run does not wait for a request that is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        looked(f"http://127.0.0.1:{silent.getsockname()[1]}/api", 1)


def test_a_server_that_is_gone_fails_nothing(looked: Callable[[str, int], None]) -> None:
    """The run goes on, and is shown as soon as the server answers again."""
    looked("http://127.0.0.1:1/api", 3)
