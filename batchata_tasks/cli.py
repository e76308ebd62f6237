"""The command `batchata`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchata_tasks.cli_look import costs, show, status
from batchata_tasks.cli_parts import (
    INTERRUPTED,
    AsJson,
    ReadWith,
    Spec,
    boundary,
    err,
    load,
    out,
    print_pairs,
    say_stopped,
    show_found,
    watched,
)
from batchata_tasks.errors import LeaseError
from batchata_tasks.jobs import as_dict
from batchata_tasks.progress import for_console

if TYPE_CHECKING:
    from batchata_tasks.prepared import Options
    from batchata_tasks.progress import Progress
    from batchata_tasks.receipt import Receipt
    from batchata_tasks.spec import EnrichmentSpec

app = typer.Typer(
    help="New columns for your tables from a language model, through the providers' batch APIs at half price.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False,
)
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a key of the spec for this run: `key=value`; may be repeated.", metavar="KEY=VALUE"),
]
_CARRIES_ON = "Stopped half-way; the same command carries on."
Limit = Annotated[int | None, typer.Option(help="Only the first N rows that need work.", min=1)]


def _leave_at_ctrl_c(progress: Progress) -> None:
    """Let Ctrl-C end the process at once, for runs on Prefect's temporary server.

    Ctrl-C reaches that server too, and a flow run without its server takes minutes to give up.
    Nothing is lost: the ledger and the dataset are ready for a kill at any moment.
    """

    def leave(_number: int, _frame: object) -> None:
        progress.close()
        say_stopped(sent=progress.sent)
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)


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

    Exit codes: 0 every row succeeded or was up to date, 3 some rows failed, 4 stopped by a cost limit, 5 stopped by
    the time limit, 1 an error stopped it or its pilot did not hold, 2 the spec or the command is wrong, 130 stopped by Ctrl-C.
    """
    with boundary():
        receipt = run_spec(load(spec, overrides, limit), direct=direct, refresh=refresh, retry_failed=retry_failed)
        _print_receipt(receipt, as_json=as_json)
    raise typer.Exit(int(receipt["exit_code"]))


def run_spec(spec: EnrichmentSpec, *, direct: bool, refresh: bool = False, retry_failed: bool = False) -> dict[str, Any]:
    """Run a spec with progress on the terminal; return the receipt."""
    from batchata_tasks.begin import refresh_mark
    from batchata_tasks.prepared import Options

    with watched() as progress:
        if not direct:
            return _run_flow(spec, refresh=refresh, retry_failed=retry_failed, progress=progress)
        return _run_direct(spec, Options(refresh_mark(refresh), retry_failed), progress).to_json()


def _run_direct(spec: EnrichmentSpec, options: Options, progress: Progress) -> Receipt:
    from batchata_tasks.pipeline import enrich

    return enrich(spec, options, progress=progress)


def _run_flow(spec: EnrichmentSpec, *, refresh: bool, retry_failed: bool, progress: Progress) -> dict[str, Any]:
    from batchata_tasks.begin import make_ready
    from batchata_tasks.progress import told_to
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
            found = state.result()  # raises what stopped the run, unless another one holds the dataset
            raise LeaseError(str(found["error"]))
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


@app.command(epilog="Example: `batchata plan deployments/specs/package-topics.yaml`")
def plan(spec: Spec, limit: Limit = None, overrides: Set = None, as_json: AsJson = False) -> None:
    """Tell what a run would send, why, what it is expected to cost and can cost at most. Sends nothing, spends nothing."""
    from batchata_tasks.preview import preview

    with boundary():
        show_found(preview(load(spec, overrides, limit)), as_json=as_json)


app.command(epilog="Example: `batchata status` or `batchata status deployments/specs/package-topics.yaml`")(status)
app.command(epilog="Example: `batchata show deployments/specs/package-topics.yaml --rows 5`")(show)
app.command(epilog="Example: `batchata costs --by model --days 7` or `batchata costs --set-budget night=20`")(costs)


@app.command(epilog="Example: `batchata cancel deployments/specs/package-topics.yaml`")
def cancel(spec: Spec, overrides: ReadWith = None, as_json: AsJson = False) -> None:
    """Cancel the open batches of a spec and land what ran; what ran is paid for."""
    from batchata_tasks.cancel import cancel as cancel_spec

    with boundary(_CARRIES_ON), for_console(err) as progress:
        found = cancel_spec(load(spec, overrides, None), progress=progress)
    show_found(found, as_json=as_json)


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
    from batchata_tasks.reconcile import reconcile as reconcile_all
    from batchata_tasks.reconcile_report import Request, pairs_of

    with boundary(_CARRIES_ON), for_console(err) as progress:
        request = Request(pairs_of(adopt or []), tuple(resend or ()), tuple(hold or ()), tuple(cancel_batches or ()))
        found = reconcile_all(request, days, progress=progress)
    show_found(found, as_json=as_json)


@app.command(epilog="Example: `batchata emulator --port 8089`, then set the variables that it prints.")
def emulator(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.", min=0, max=65535)] = 0,
    seconds: Annotated[float, typer.Option(help="How long a batch takes.", min=0)] = 5.0,
) -> None:
    """Imitate both providers' batch APIs on loopback: rehearse for free, with answers made up."""
    from batchata_tasks.demo import serve_emulator

    with boundary():
        serve_emulator(port, seconds)


@app.command(epilog="Example: `batchata demo`")
def demo(
    direct: Annotated[bool, typer.Option("--direct", help="Run without Prefect.")] = False,
) -> None:
    """Enrich 400 real package summaries with both providers' models, against the emulator. Free."""
    from batchata_tasks.demo import run_demo

    with boundary():
        code = run_demo(out, direct=direct)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
