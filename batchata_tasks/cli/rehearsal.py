"""`batchata rehearse`: a spec's run against a private emulator, of which nothing stays."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from batchata_tasks.cli.console import out, print_json
from batchata_tasks.cli.fault_option import fault_rules
from batchata_tasks.cli.reports import text_of
from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import EmulatorProcess
from batchata_tasks.emulator.core.faults import SETTINGS
from batchata_tasks.pipeline.receipt import Receipt
from batchata_tasks.pipeline.runner import DirectRunner
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.printing import print_pairs, print_table, print_text
from batchata_tasks.reports.rows import rows_table
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from batchata_tasks.spec.loading import overridden

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

ROWS = 20
"""How many rows are rehearsed unless somebody says so."""
_LEFT_OUT = ("Dataset", "Rehearsal")  # of the receipt: that is gone by now, and this is known
_MADE_UP = (
    "The answers are made up by an emulator, and so is the cost; nothing of the rehearsal is left."
)
_PLAYED = ("anthropic", "openai")
_BATCH_SECONDS = 0.5
# a batch that never ends would be waited for a day
_LONGEST_WITH_FAULTS = "60s"
# what is patient for days otherwise; those that are set already stay
_PATIENCE = {
    "BATCHATA_POLL_INTERVAL": "0.2",
    "BATCHATA_UNCLEAR_GRACE": "5",
    "BATCHATA_PATIENCE": "5",
    "BATCHATA_CANCEL_GRACE": "5",
}
# they select an account, or add to requests: a private emulator has one account
_UNSET = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "OPENAI_CUSTOM_HEADERS",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
)


@dataclass(frozen=True)
class Rehearsed:
    """How a rehearsal ended: its receipt, and rows of the dataset that is gone by now."""

    receipt: dict[str, Any]
    rows: list[dict[str, Any]]


def rehearse(
    spec: EnrichmentSpec,
    progress: Progress,
    faults: Sequence[str] = (),
    *,
    rows: int | None = None,
    shown: int = 10,
) -> Rehearsed:
    """Run a spec against an emulator of its own, with a ledger and an output of its own.

    All of it is deleted again: the spec's output and ledger stay as they are, and no key is needed.
    The first `rows` rows are sent (default: `ROWS`, or the spec's smaller `limit`), and the first
    `shown` of the dataset returned.

    Raises:
        InputError: the spec, the source or a fault is wrong.
        BatchataError: something else stopped the run.
    """
    rules = fault_rules(faults)
    _check_providers(spec)
    with (
        _cleaned_up_at_signals(),
        TemporaryDirectory(prefix="batchata-rehearsal-", ignore_cleanup_errors=True) as folder,
    ):
        changes: dict[str, Any] = {"output": str(Path(folder) / "out"), "credentials": None}
        changes["limit"] = rows or min(ROWS, spec.limit or ROWS)
        if rules and spec.time_limit is None:
            changes["time_limit"] = _LONGEST_WITH_FAULTS
        with (
            EmulatorProcess(mode="seconds", n=_BATCH_SECONDS) as emulator,
            _environment(_settings(Path(folder)) | emulator.env()),
        ):
            for rule in rules:
                emulator.control.faults(**{name: getattr(rule, name) for name in SETTINGS})
            rehearsed = overridden(spec, changes)
            ready = prepare_run(rehearsed, Settings())
            receipt = DirectRunner().table(ready, progress, refresh=False, retry_failed=False)
        return Rehearsed(receipt.to_json(), _rows(rehearsed, shown))


@contextmanager
def _cleaned_up_at_signals() -> Generator[None, None, None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; the process then dies by the signal.

    A terminal that is closed sends SIGHUP. Whoever started the command to ignore it is heeded.
    """
    sent = list[int]()

    def interrupt(number: int, _frame: object) -> None:
        sent.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    present = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no HUP
    numbers = [one for one in present if one and signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in sent[:1]:
            signal.raise_signal(number)


def _check_providers(spec: EnrichmentSpec) -> None:
    for destination in spec.destinations():
        if destination.provider not in _PLAYED:
            message = (
                f"provider: the emulator plays {' and '.join(_PLAYED)}, and cannot play "
                f"{destination.provider}; rehearse with a model of theirs (`--set model=…`)."
            )
            raise SpecError(message)


def _settings(folder: Path) -> dict[str, str]:
    """Return the variables of a rehearsal in a folder, but those of the emulator."""
    patience = {name: os.environ.get(name, value) for name, value in _PATIENCE.items()}
    # whichever way the network is reached, the emulator is here
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
    return {
        **patience,
        "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None, None, None]:
    """Set variables, and unset those of other accounts, for the length of a block."""
    before = {name: os.environ.get(name) for name in (*variables, *_UNSET)}
    for name in _UNSET:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _rows(spec: EnrichmentSpec, rows: int) -> list[dict[str, Any]]:
    """Return rows of the dataset; none if no batch landed."""
    if not any(Path(spec.output, "data").glob("*.parquet")):
        return []
    return dataset_rows(spec, Selection(rows))


def print_rehearsed(spec: EnrichmentSpec, name: str, done: Rehearsed, *, as_json: bool) -> None:
    """Print the receipt and the rows of a rehearsal; `name` is how the spec was given."""
    if as_json:
        # the dataset is gone by now
        print_json({**done.receipt, "dataset": None, "rows": done.rows}, default=text_of)
        return
    lines = Receipt(**done.receipt).lines()
    print_pairs(
        out, [(label, naming(text, name)) for label, text in lines if label not in _LEFT_OUT]
    )
    if done.rows:
        print_text(out, "")
        print_table(out, rows_table(spec, done.rows, out.width))
    print_text(out, _MADE_UP, style="dim")
