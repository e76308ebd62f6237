"""The moments at which a crash would cost most, each on purpose."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.recovery.gate import Gate
from tests.support.recovery.place import GRACE, LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.recovery.place import Place, Provider

    Make = Callable[..., Place]

LONG = 600.0  # seconds that batches take until a test lets them end
SHORT_LEASE = {"BATCHATA_LEASE_SECONDS": str(LEASE)}


def creates(place: Place) -> int:
    """Return how many creates the provider has answered, or hung up on."""
    return len(place.emulator.control.ledger()["creates"])


@pytest.mark.parametrize(
    ("provider", "fault"),
    [
        ("anthropic", "slow"),
        ("anthropic", "drop_after"),
        ("openai", "accept_delay"),
        ("openai", "http_500_after"),
    ],
)
def test_a_batch_that_was_accepted_unseen_is_adopted(
    make: Make, provider: Provider, fault: str
) -> None:
    """A run is killed before it knows of its accepted batch.

    The batch is found in the account, adopted and never sent again.
    """
    place = make(provider, rows=80, seconds=LONG)
    place.emulator.control.faults(kind=fault, route="create", nth=2, seconds=0.6)
    for nth in range(3, 8):  # two lists go before the creates; then the batch is looked up
        place.emulator.control.faults(kind="slow", route="list", nth=nth, seconds=1.0)
    run = place.start()
    assert place.until(lambda: place.stages()["sending"] and place.stages()["polling"], run)
    if fault == "drop_after":
        place.until(lambda: creates(place) == 2, run)
    assert run.kill() == -9
    place.emulator.control.progress("seconds", 0.2)
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert (findings.rows, findings.accepted, place.book()["batches_accepted"]) == (80, 80, 2)


def test_a_create_that_never_arrived_is_sent_once(make: Make) -> None:
    """A run is killed after a create that the provider never saw.

    Its absence is proven first, then it is sent.
    """
    place = make("anthropic", rows=40)
    place.emulator.control.faults(kind="drop_before", nth=1)
    run = place.start()
    assert place.until(lambda: creates(place) == 1, run)
    assert run.kill() == -9
    began = time.time()
    place.finish()
    findings = place.check()
    assert not findings.problems()
    book = place.book()
    assert (findings.rows, book["batches_accepted"]) == (40, 1)
    assert book["batches"][0]["created_at"] > began + GRACE / 2


def test_a_create_that_waited_for_another_has_its_whole_grace(make: Make) -> None:
    """A create waits while a rival of equal size is unclear.

    Its own grace begins when it is sent, and the run does not sleep meanwhile.
    """
    place = make("anthropic", rows=80)
    place.emulator.control.faults(kind="drop_before", nth=1)
    place.emulator.control.faults(kind="accept_delay", nth=3, seconds=GRACE / 3)
    assert LEASE / 2 < GRACE
    place.finish(**SHORT_LEASE)
    findings = place.check()
    assert not findings.problems()
    assert place.book()["batches_accepted"] == 2


def test_a_changed_spec_lands_the_old_rows_first(make: Make) -> None:
    """What the dead run had at the provider is landed under its own spec.

    Then the new plan sends every row.
    """
    place = make("anthropic", rows=160, seconds=LONG)
    run = place.start()
    assert place.until(lambda: place.stages()["polling"] == 3, run)
    assert run.kill() == -9
    place.ask("v2")
    place.emulator.control.progress("seconds", 0.2)
    receipt = json.loads(place.finish().text().splitlines()[-1])
    assert receipt["plan"]["reasons"] == {"new": 40, "prompt": 120}
    findings = place.check()
    assert not findings.problems()
    assert (findings.rows, findings.accepted) == (160, 160 + 120)


def test_what_a_dead_run_of_another_spec_never_sent_is_not_sent(make: Make) -> None:
    """An unclear create of an old prompt is dropped once its absence is proven.

    Nobody wants its rows.
    """
    place = make("openai", rows=40)
    place.emulator.control.faults(kind="drop_before", nth=1)
    run = place.start()
    assert place.until(lambda: creates(place) == 1, run)
    assert run.kill() == -9
    place.ask("v2")
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert (findings.rows, findings.accepted) == (40, 40)


def test_money_of_a_chunk_that_was_never_sent_is_given_back(make: Make) -> None:
    """A run is killed between reservation and intent, then the prompt changes.

    No reservation stays open for ever.
    """
    place = make("openai", rows=40)
    place.emulator.control.faults(kind="slow", route="upload", nth=1, seconds=2.0)
    run = place.start()
    assert place.until(lambda: place.stages()["writing"], run)
    assert run.kill() == -9
    place.ask("v2")
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert findings.accepted == 40


def test_a_stopped_run_that_wakes_up_cannot_send_or_commit(make: Make) -> None:
    """A run is suspended with batches open, past its lease, and another finishes.

    When it wakes up, it gives up without a trace.
    """
    place = make("openai", rows=120, seconds=LONG)
    run = place.start(**SHORT_LEASE)
    assert place.until(lambda: place.stages()["polling"] == 3, run)
    place.halt(run)
    place.emulator.control.progress("seconds", 0.2)
    assert place.take_over(**SHORT_LEASE).wait() == 0
    before = place.book()
    run.go_on()
    assert run.wait() == 1
    assert "lost its hold on the dataset" in run.text()
    assert place.book() == before
    findings = place.check()
    assert not findings.problems()
    assert findings.accepted == 120


def test_a_run_that_was_stopped_while_it_connected_cannot_send(make: Make) -> None:
    """A run is suspended after its intent, before the connection for its create is made.

    When it wakes up, it does not send.
    """
    place = make("anthropic", rows=40)
    with Gate(place.emulator.url) as gate:
        through = {**SHORT_LEASE, "ANTHROPIC_BASE_URL": f"{gate.url}/anthropic"}
        run = place.start(**through)
        assert place.until(lambda: place.stages()["sending"], run)
        time.sleep(0.7)  # its SDK has begun to connect
        place.halt(run)
        gate.open()
        other = place.take_over(**through)
        assert other.wait() == 0, other.text()
        run.go_on()
        assert run.wait() == 1, run.text()
    findings = place.check()
    assert not findings.problems()
    assert (findings.accepted, place.book()["batches_accepted"]) == (40, 1)


def test_a_run_that_was_stopped_while_it_sent_does_not_disturb_its_successor(make: Make) -> None:
    """Its create is refused only when the successor's own is under way.

    The successor's intent stays.
    """
    place = make("anthropic", rows=40)
    control, quick = place.emulator.control, {**SHORT_LEASE, "BATCHATA_UNCLEAR_GRACE": "0.5"}
    control.faults(kind="slow", route="create", nth=1, seconds=LEASE + 1.5)
    run = place.start(**quick)
    assert place.until(lambda: place.stages()["sending"], run)
    time.sleep(0.2)
    place.halt(run)
    # looked at when the create has been held back: it will be refused
    control.limits(anthropic_requests=39)
    control.faults(kind="slow", route="create", nth=1, seconds=LEASE + 0.5)
    successor = place.take_over(**quick)
    assert place.until(lambda: creates(place) == 1, successor)
    control.limits(anthropic_requests=100_000)
    assert place.stages()["sending"]
    run.go_on()
    assert run.wait() == 1, run.text()
    assert successor.wait() == 0, successor.text()
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert findings.accepted == 40


def test_two_runs_at_once_do_nothing_twice(make: Make) -> None:
    """Two runs start at the same moment on a new dataset.

    One works, the other is refused with a sentence.
    """
    place = make("openai", rows=40)
    runs = [place.start(), place.start()]
    codes = sorted(run.wait() for run in runs)
    texts = [run.text() for run in runs]
    assert codes in ([0, 0], [0, 1]), texts
    if codes == [0, 1]:
        assert any("another run holds this dataset" in text for text in texts), texts
    findings = place.check()
    assert not findings.problems()
    assert findings.accepted == 40


def test_a_download_that_is_cut_within_its_last_line_is_fetched_again(make: Make) -> None:
    """A result file that ends early, without an error, is not taken for the whole.

    No paid answer is lost.
    """
    place = make("openai", rows=1)
    place.emulator.control.faults(kind="cut_download", nth=1, after_bytes=200, clean=True)
    place.finish()
    findings = place.check()
    assert not findings.problems()
    assert findings.accepted == 1
