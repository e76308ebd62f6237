"""The commands that only show things: `status`, `show`, `costs`."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchata_tasks.cli.console import (
    DATASET,
    KEYS,
    AsJson,
    Dataset,
    ReadWith,
    boundary,
    err,
    is_folder,
    load,
    out,
    print_json,
    shown_progress,
)
from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.reports.printing import print_pairs, print_table, print_text

if TYPE_CHECKING:
    from batchata_tasks.reports.shown_dataset import ShownDataset


class By(Enum):
    """What each line of `batchata costs` stands for."""

    SPEC = "spec"
    BUDGET = "budget"
    MODEL = "model"
    DAY = "day"


Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Restore to this ledger a dataset whose ledger is lost."),
]
Follow = Annotated[
    bool,
    typer.Option(
        "--follow", help="Show the spec's open run until it ends, from any terminal; Ctrl-C."
    ),
]


def status(
    spec: Annotated[
        str | None,
        typer.Argument(help=f"{DATASET} Without it, all runs of the ledger.", metavar="[SPEC]"),
    ] = None,
    rebuild: Rebuild = False,
    follow: Follow = False,
    number: Annotated[
        int, typer.Option("--runs", help="How many runs to show, the newest.", min=1)
    ] = 10,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest runs, their batches and what they cost.

    `--follow` only looks: Ctrl-C leaves the run as it is. It ends with the run's own exit code,
    with 0 if no run is open, with 1 if no process is at work on it.

    `--rebuild` restores what a lost ledger knew of the spec's dataset, from the dataset's own
    folder; no run may be at work on it. The next run looks at the provider for batches that were
    sent and not landed.

    Exit codes: 0, with `--follow` the run's; 2 a folder has no dataset, or the ledger is another
    one than the dataset's; 1 and 130 as of `run`.
    """
    from batchata_tasks.cli.running import quiet_prefect
    from batchata_tasks.cli.server import flow_runs
    from batchata_tasks.reports.in_prefect import asked_of_server, note_flow_runs
    from batchata_tasks.reports.status import runs_overview

    with boundary(spec=spec):
        settings = Settings()
        if follow:
            _follow(spec, overrides, settings, as_json=as_json)
        if rebuild:
            _rebuild(spec, overrides, settings)
        dataset = None if spec is None else _dataset_at(spec, overrides)
        runs = runs_overview(dataset, settings, number)
        if works := asked_of_server(runs):
            quiet_prefect()
            note_flow_runs(runs, flow_runs(works))
        if as_json:
            print_json(runs)
        else:
            _print_runs(runs, dataset, settings, spec)


def _print_runs(
    runs: list[dict[str, Any]], dataset: ShownDataset | None, settings: Settings, spec: str | None
) -> None:
    from batchata_tasks.reports.status import (
        older_runs,
        runs_in_the_way,
        runs_remedies,
        runs_table,
        undecided,
    )

    print_table(out, runs_table(runs, out.width))
    older = filter(None, [older_runs(dataset, settings, runs)])
    standing = (*runs_remedies(runs), *runs_in_the_way(runs), *undecided(dataset, settings))
    for text in (*older, *standing):
        print_text(out, naming(text, spec))


def _follow(
    spec: str | None, overrides: list[str] | None, settings: Settings, *, as_json: bool
) -> None:
    from batchata_tasks.common.errors import SpecError
    from batchata_tasks.reports.follow import follow
    from batchata_tasks.reports.status import runs_table

    if spec is None:
        message = "--follow: name the SPEC whose run is to be followed."
        raise SpecError(message)
    stopped = "Stopped looking; the run goes on."
    with boundary(stopped, spec), shown_progress(spec) as progress:
        followed = follow(_dataset_at(spec, overrides), settings, progress)
    if as_json:
        print_json(followed.run)
    elif (text := followed.text()) is not None:
        print_text(out, text)
    elif followed.run is not None:
        print_table(out, runs_table([followed.run], out.width))
    raise typer.Exit(followed.exit_code)


def _rebuild(spec: str | None, overrides: list[str] | None, settings: Settings) -> None:
    from batchata_tasks.common.errors import SpecError
    from batchata_tasks.operations.rebuild import rebuild, rebuild_in
    from batchata_tasks.planning.prepare import prepare_run

    if spec is None:
        message = "--rebuild: name the SPEC whose dataset is to be restored to the ledger."
        raise SpecError(message)
    if is_folder(spec, overrides):
        rebuilt = rebuild_in(spec, settings)
    else:
        with closing(prepare_run(load(spec, overrides, None), settings)) as ready:
            rebuilt = rebuild(ready, settings)
    for label, value in rebuilt.lines():
        print_text(err, f"{label}: {value}")


def _dataset_at(spec: str, overrides: list[str] | None) -> ShownDataset:
    """Return the dataset of a spec, or the one in a folder."""
    from batchata_tasks.reports.shown_dataset import FolderDataset

    return FolderDataset(spec) if is_folder(spec, overrides) else load(spec, overrides, None)


Where = Annotated[
    str | None,
    typer.Option(
        help=(
            "Only rows for which this holds: a condition over the dataset's columns, in the "
            "language of the spec's `where`, such as `_status != 'succeeded' and stars > 3`."
        ),
        metavar="CONDITION",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these columns, in this order; names with commas between, or repeated.",
        metavar="NAMES",
    ),
]
OneKey = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "Print one row whole: inputs, prompt, passages, answer, attempts, cost and batch. "
            f"{KEYS}"
        ),
        metavar="KEY",
    ),
]


def show(
    spec: Dataset,
    rows: Annotated[int, typer.Option(help="How many rows to print.", min=1)] = 10,
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that failed.")] = False,
    where: Where = None,
    columns: Columns = None,
    key: OneKey = None,
    open_page: Annotated[
        bool,
        typer.Option(
            "--open",
            help="With --key: write a page of HTML with the documents that were sent and the "
            "passages marked in them, and open it in a browser.",
        ),
    ] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Print rows of the dataset in the source's order, and how to open it elsewhere.

    Of a folder that is not a Batch's nobody knows the source: rows come in the dataset's order.

    Exit codes: 0; 2 there is no dataset, no row with the key, or a condition is wrong; 1 and 130
    as of `run`.
    """
    from batchata_tasks.reports.rows import how_to_open, rows_table
    from batchata_tasks.reports.selected_rows import Selection, dataset_rows
    from batchata_tasks.reports.shown_dataset import dataset_in

    with boundary(spec=spec):
        if open_page and not key:
            message = "--open: it shows one row; name it with --key."
            raise SpecError(message)
        dataset = dataset_in(spec) if is_folder(spec, overrides) else load(spec, overrides, None)
        if key:
            _show_row(dataset, key, as_json=as_json, open_page=open_page)
            return
        named = _names(columns or [])
        shown = dataset_rows(dataset, Selection(rows, failed, where, named or None))
        if as_json:
            print_json(shown, default=text_of)
            return
        none_failed = failed and not shown and where is None
        table = rows_table(dataset, shown, out.width, named)
        print_table(out, "No row failed." if none_failed else table)
        print_text(out, how_to_open(dataset))


def _show_row(
    dataset: ShownDataset, key: list[str], *, as_json: bool, open_page: bool = False
) -> None:
    from batchata_tasks.reports.one_row import one_row

    row = one_row(dataset, key)
    if open_page:
        _open(row.html())
    elif as_json:
        print_json(row.to_json(), default=text_of)
    else:
        print_pairs(out, row.facts())
        print_text(out, f"\n{row.text()}")


def _open(page: str) -> None:
    """Write a page to a file of its own, and open that in a browser if there is one."""
    import webbrowser
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(  # it may be read by this user alone, and stays
        "w", encoding="utf-8", prefix="batchata-", suffix=".html", delete=False
    ) as file:
        file.write(page)
    print_text(out, file.name)
    webbrowser.open(Path(file.name).as_uri())


def _names(columns: list[str]) -> list[str]:
    """Return names that were given one by one, or with commas between."""
    return [name.strip() for text in columns for name in text.split(",") if name.strip()]


def costs(
    by: Annotated[By, typer.Option(help="What each line stands for.")] = By.SPEC,
    days: Annotated[
        int | None,
        typer.Option(help="The last N days, including today; default 30.", min=1, max=36_500),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Since this day instead (UTC).", metavar="YYYY-MM-DD")
    ] = None,
    set_budget: Annotated[
        str | None,
        typer.Option(
            help=(
                "Change the limit of a shared budget first, for all specs and rehearsals, whatever "
                "they or budgets.yaml state; it holds until all of them state the same new one, or "
                "it is set anew."
            ),
            metavar="NAME=USD",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, reserved and saved, and what is left of shared budgets.

    Money counts on the day on which it was reserved.

    Exit codes: 0; 2 an option or a budget is wrong; 1 and 130 as of `run`.
    """
    from batchata_tasks.reports.costs import change_budget, gather, moment_of
    from batchata_tasks.reports.costs_table import print_costs

    with boundary():
        moment, settings = moment_of(days, since), Settings()
        if set_budget is not None:
            print_text(err, change_budget(set_budget, settings))
        gathered = gather(by.value, moment, settings)
        if as_json:
            print_json(gathered.to_json())
        else:
            print_costs(gathered, out)


def text_of(value: object) -> str:
    """Return money as digits, other values that JSON lacks as their text."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
