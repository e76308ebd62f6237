"""`batchata emulator --list-faults`: every fault that can be rehearsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from batchata_tasks.cli.console import out

if TYPE_CHECKING:
    from batchata_tasks.emulator.core.fault_kinds import Kind

_INTRODUCTION = (
    "Faults are off unless `--fault` (or the emulator's controls, in a test) names them. All "
    "settings are optional but `style`: `provider` is anthropic or openai; `nth` strikes only the "
    "nth call, `count` so many at most, `probability` a part of them by `seed`, `larger_than` "
    "those whose body has more bytes; `contains` strikes requests by their text, `share` a part of "
    "them, `times` each so often. html, empty and clean need no value. Without these settings a "
    "fault strikes every time; of the others, seconds is 1, after_bytes 1000, seed 0, status "
    "as described."
)
_WHILE_IT_RUNS = (
    "While it runs, GET /_emulator/ledger tells what it accepted and billed (accepted_twice: in "
    "two batches; billed_twice: it ran twice; both count equal request bodies, so rows with equal "
    "prompts count, and so do rows of two datasets). A DELETE of /_emulator/faults lifts all "
    'faults, a POST of {"kind": …} there adds one, and a POST to '
    "/_emulator/batches/BATCH/finish ends a "
    "batch, even if it is stuck. For rehearsals, set BATCHATA_UNCLEAR_GRACE=5 BATCHATA_PATIENCE=5 "
    "BATCHATA_CANCEL_GRACE=5 BATCHATA_POLL_INTERVAL=0.5 where the runs are started: their defaults "
    "are 900, 60 and 3600 seconds, and the provider's pace. A batch that never ends is given up "
    "only after a day unless it is cancelled: rehearse it with a time limit (`batchata run … --set "
    "time_limit=10s`), or `batchata cancel`."
)


def print_faults() -> None:
    """Print all kinds of faults by what they strike, with their routes and settings."""
    from batchata_tasks.emulator.core.fault_kinds import IDS, KINDS, ROUTES, SCOPES, STYLES

    for text in (_INTRODUCTION, _WHILE_IT_RUNS, f"A `route` is one of {', '.join(ROUTES)}."):
        out.print(Padding(Text(text), (0, 1, 1, 1)))
    for scope, where in SCOPES.items():
        kinds = {name: kind for name, kind in KINDS.items() if kind.scope == scope}
        lines = [(name, _about(kind)) for name, kind in kinds.items()]
        styles = {"answer": STYLES, "batch": IDS}.get(scope, {})
        lines += [(f"  {style}", Text(f"{does}.")) for style, does in styles.items()]
        _print_panel(f"Faults of {where.strikes}", where.settings, lines)


def _about(kind: Kind) -> Text:
    text = Text(kind.does)
    routes = ", ".join(kind.routes) if kind.scope in ("call", "answer") else ""
    notes = [
        f"route {routes}" if routes else "",
        _settings(kind),
        f"only {kind.only}" if kind.only else "",
    ]
    shown = "; ".join(filter(None, notes))
    return text.append(f" [{shown}]", style="dim") if shown else text


def _settings(kind: Kind) -> str:
    from batchata_tasks.emulator.core.fault_kinds import KINDS

    general = KINDS["http_error"]
    if kind.settings == general.settings and kind != general:
        return "settings as http_error"
    return f"settings {kind.settings}" if kind.settings else ""


def _print_panel(title: str, settings: str, lines: list[tuple[str, Text]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    for name, about in lines:
        table.add_row(name, about)
    table.add_row("", Text(f"All read {settings}.", style="dim"))
    out.print(Panel(table, title=title, title_align="left", border_style="dim", box=box.ROUNDED))
