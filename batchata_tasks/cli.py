"""The command `batchata`."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchata_tasks.errors import BatchataError, InputError
from batchata_tasks.jobs import as_dict
from batchata_tasks.spec_file import load_spec

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.plan import Options
    from batchata_tasks.progress import Progress
    from batchata_tasks.receipt import Receipt
    from batchata_tasks.spec import EnrichmentSpec

app = typer.Typer(
    help="New columns for your tables from a language model, through the providers' batch APIs at half price.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False,
)
_out, _err = Console(), Console(stderr=True)
_INTERRUPTED = 130

Spec = Annotated[str, typer.Argument(help="Path of the spec (YAML or JSON).", metavar="SPEC")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a key of the spec for this run: `key=value`; may be repeated.", metavar="KEY=VALUE"),
]
Limit = Annotated[int | None, typer.Option(help="Only the first N rows that need work.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ReadWith = Annotated[list[str] | None, typer.Option("--set", help="Read the spec with a key changed: `key=value`.", metavar="KEY=VALUE")]


@contextmanager
def _boundary() -> Generator[None, None, None]:
    """Turn errors into a sentence and an exit code; the one place that does."""
    try:
        yield
    except BatchataError as error:
        _err.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
    except KeyboardInterrupt:
        _say_stopped()
        raise typer.Exit(_INTERRUPTED) from None


def _say_stopped() -> None:
    _err.print("Stopped. Batches that were sent go on at the provider; the same command lands them.", style="yellow", soft_wrap=True)


def _leave_at_ctrl_c(progress: Progress) -> None:
    """Let Ctrl-C end the process at once, for runs on Prefect's temporary server.

    Ctrl-C reaches that server too, and a flow run without its server takes minutes to give up.
    Nothing is lost: the ledger and the dataset are ready for a kill at any moment.
    """

    def leave(_number: int, _frame: object) -> None:
        progress.close()
        _say_stopped()
        os._exit(_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)


def _load(spec: str, overrides: list[str] | None, limit: int | None) -> EnrichmentSpec:
    return load_spec(spec, [*(overrides or []), *([f"limit={limit}"] if limit else [])])


@app.command(epilog="Example: `batchata run deployments/specs/package-topics.yaml --limit 20`")
def run(
    spec: Spec,
    direct: Annotated[bool, typer.Option("--direct", help="Run without Prefect.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Count rows that landed before this run as not landed.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Send rows again that failed for good.")] = False,
    limit: Limit = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run an enrichment to its end. Started again after a crash, it carries on.

    Exit codes: 0 every row succeeded or was up to date, 3 some rows failed, 4 stopped by a cost
    limit, 5 stopped by the time limit, 1 an error stopped it, 2 the spec or the command is wrong, 130 stopped by Ctrl-C.
    """
    with _boundary():
        receipt = run_spec(_load(spec, overrides, limit), direct=direct, refresh=refresh, retry_failed=retry_failed)
        _print_receipt(receipt, as_json=as_json)
    raise typer.Exit(int(receipt["exit_code"]))


def run_spec(spec: EnrichmentSpec, *, direct: bool, refresh: bool = False, retry_failed: bool = False) -> dict[str, Any]:
    """Run a spec with progress on the terminal; return the receipt."""
    from batchata_tasks.plan import Options
    from batchata_tasks.progress import for_console
    from batchata_tasks.session import refresh_mark

    with for_console(_err) as progress:
        if not direct:
            return _run_flow(spec, refresh=refresh, retry_failed=retry_failed, progress=progress)
        return _run_direct(spec, Options(refresh_mark(refresh), retry_failed), progress).to_json()


def _run_direct(spec: EnrichmentSpec, options: Options, progress: Progress) -> Receipt:
    from batchata_tasks.pipeline import enrich

    return enrich(spec, options, progress=progress)


def _run_flow(spec: EnrichmentSpec, *, refresh: bool, retry_failed: bool, progress: Progress) -> dict[str, Any]:
    from batchata_tasks.progress import told_to
    from batchata_tasks.session import make_ready
    from batchata_tasks.settings import Settings

    make_ready(spec, Settings())  # bad input is told at once, before Prefect takes its seconds
    quiet_prefect()
    progress.note("starting Prefect")
    from prefect.settings import get_current_settings

    from batchata_tasks.flow import enrich

    if not (os.environ.get("PREFECT_API_URL") or get_current_settings().api.url):
        _leave_at_ctrl_c(progress)
    with told_to(progress):
        state: Any = enrich(spec, refresh=refresh, retry_failed=retry_failed, return_state=True)
        if progress.receipt is None:
            state.result()  # raises what stopped the run
        return as_dict(progress.receipt)


def quiet_prefect() -> None:
    """Set Prefect's defaults for a command: before its import, and never against the user's own.

    With no server configured, Prefect starts a temporary one; the services that it does not need
    for one run only make it slow to start.
    """
    wanted = {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors become one sentence, without their tracebacks
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",  # and no notice about it in the middle of a run's display
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _print_receipt(receipt: dict[str, Any], *, as_json: bool) -> None:
    from batchata_tasks.receipt import Receipt

    if as_json:
        sys.stdout.write(json.dumps(receipt) + "\n")
        return
    print_pairs(Receipt(**receipt).lines())


def print_pairs(lines: list[tuple[str, str]]) -> None:
    """Print a receipt or a plan: what, value."""
    if not _out.is_terminal:  # no padding or folding in logs and pipes
        width = max(len(what) for what, _ in lines)
        _out.file.write("".join(f"{what.ljust(width)}  {value}\n" for what, value in lines))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, value in lines:
        table.add_row(what, Text(value))
    _out.print(table, highlight=False)


@app.command(epilog="Example: `batchata plan deployments/specs/package-topics.yaml`")
def plan(spec: Spec, limit: Limit = None, overrides: Set = None, as_json: AsJson = False) -> None:
    """Tell what a run would send, why, what it is expected to cost and can cost at most. Sends nothing, spends nothing."""
    from batchata_tasks.preview import preview

    with _boundary():
        _print(preview(_load(spec, overrides, limit)), as_json=as_json)


@app.command(epilog="Example: `batchata status` or `batchata status deployments/specs/package-topics.yaml`")
def status(
    spec: Annotated[str | None, typer.Argument(help="Path of a spec; without it, all runs of the ledger.", metavar="[SPEC]")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make this ledger know a dataset whose own ledger is lost.")] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Tell the newest runs, their batches and what they cost.

    `--rebuild` restores what a lost ledger knew of the spec's dataset, from the dataset's own folder;
    no run may be at work on it. The next run looks at the provider for what was sent and not landed.
    """
    from batchata_tasks.overview import runs_overview, runs_table

    with _boundary():
        if rebuild:
            _rebuild(spec, overrides)
        found = runs_overview(_load(spec, overrides, None) if spec is not None else None)
        if as_json:
            sys.stdout.write(json.dumps(found) + "\n")
        else:
            _out.print(runs_table(found))


def _rebuild(spec: str | None, overrides: list[str] | None) -> None:
    from batchata_tasks.errors import SpecError
    from batchata_tasks.rebuild import rebuild
    from batchata_tasks.session import make_ready
    from batchata_tasks.settings import Settings

    if spec is None:
        message = "--rebuild: name the SPEC whose dataset the ledger is to know again."
        raise SpecError(message)
    for what, value in rebuild(make_ready(_load(spec, overrides, None), Settings()), Settings()).lines():
        _err.print(f"{what}: {value}", markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: `batchata show deployments/specs/package-topics.yaml --rows 5`")
def show(
    spec: Spec,
    rows: Annotated[int, typer.Option(help="How many rows to print.", min=1)] = 10,
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that failed.")] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Print rows of the dataset, and how to open it elsewhere."""
    from batchata_tasks.overview import dataset_rows, how_to_open, rows_table

    with _boundary():
        loaded = _load(spec, overrides, None)
        found = dataset_rows(loaded, rows, only_failed=failed)
        if as_json:
            sys.stdout.write(json.dumps(found, default=_plain) + "\n")
        else:
            _out.print(rows_table(loaded, found) if found or not failed else "No row failed.")
            _out.print(how_to_open(loaded), markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: `batchata cancel deployments/specs/package-topics.yaml`")
def cancel(spec: Spec, overrides: ReadWith = None, as_json: AsJson = False) -> None:
    """Cancel the open batches of a spec and land what ran; what ran is paid for."""
    from batchata_tasks.cancel import cancel as cancel_spec
    from batchata_tasks.progress import for_console

    with _boundary(), for_console(_err) as progress:
        found = cancel_spec(_load(spec, overrides, None), progress=progress)
    _print(found, as_json=as_json)


@app.command(epilog="Example: `batchata reconcile` or `batchata reconcile --resend ckrdy5qavoutw5za5pyg`")
def reconcile(
    adopt: Annotated[list[str] | None, typer.Option(help="This chunk is that batch.", metavar="CHUNK=BATCH")] = None,
    resend: Annotated[list[str] | None, typer.Option(help="This held chunk never was accepted: free its rows.", metavar="CHUNK")] = None,
    hold: Annotated[list[str] | None, typer.Option(help="Nobody can look for this chunk (its key is gone).", metavar="CHUNK")] = None,
    cancel_batches: Annotated[list[str] | None, typer.Option("--cancel", help="Cancel a batch that nobody owns.", metavar="BATCH")] = None,
    days: Annotated[float, typer.Option(help="How far back to list batches.", min=0)] = 30,
    as_json: AsJson = False,
) -> None:
    """Compare the providers' batches with the ledger: adopt ours, report what nobody owns, settle doubt."""
    from batchata_tasks.progress import for_console
    from batchata_tasks.reconcile import reconcile as reconcile_all
    from batchata_tasks.reconcile_report import Request, pairs_of

    with _boundary(), for_console(_err) as progress:
        request = Request(pairs_of(adopt or []), tuple(resend or ()), tuple(hold or ()), tuple(cancel_batches or ()))
        found = reconcile_all(request, days, progress=progress)
    _print(found, as_json=as_json)


def _print(found: Any, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found.to_json()) + "\n")
    else:
        print_pairs(found.lines())


def _plain(value: object) -> str:
    """Write money as digits, all else that JSON lacks as text."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


@app.command(epilog="Example: `batchata emulator --port 8089`, then set the variables that it prints.")
def emulator(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.", min=0, max=65535)] = 0,
    seconds: Annotated[float, typer.Option(help="How long a batch takes.", min=0)] = 5.0,
) -> None:
    """Imitate both providers' batch APIs on loopback: rehearse for free, with answers made up."""
    from batchata_tasks.demo import serve_emulator

    with _boundary():
        serve_emulator(port, seconds)


@app.command(epilog="Example: `batchata demo`")
def demo(
    direct: Annotated[bool, typer.Option("--direct", help="Run without Prefect.")] = False,
) -> None:
    """Enrich 400 real package summaries with both providers' models, against the emulator. Free."""
    from batchata_tasks.demo import run_demo

    with _boundary():
        code = run_demo(_out, direct=direct)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
