"""The commands of `batchata`."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

import typer

from batchata_tasks.cli.console import (
    AsJson,
    Faults,
    ReadWith,
    Spec,
    boundary,
    load,
    out,
    print_json,
    print_result,
    shown_progress,
)
from batchata_tasks.cli.fault_list import print_faults
from batchata_tasks.cli.init import init
from batchata_tasks.cli.reports import costs, show, status
from batchata_tasks.cli.running import run_spec
from batchata_tasks.cli.upkeep import compact, forget, rename, revalidate
from batchata_tasks.common.commands import naming
from batchata_tasks.common.settings import Settings
from batchata_tasks.progress.output import write_on
from batchata_tasks.reports.printing import print_pairs, print_text

app = typer.Typer(
    help=(
        "New columns for your tables from a language model, through the providers' batch APIs at "
        "half price."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        print_text(out, f"batchata-flows {metadata.version('batchata-flows')}")
        raise typer.Exit


@app.callback()
def _batchata(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version


Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a key of the spec for this run: `key=value`; may be repeated.",
        metavar="KEY=VALUE",
    ),
]
_CARRIES_ON = "Stopped half-way; the same command carries on."
Refresh = Annotated[
    bool,
    typer.Option(
        "--refresh",
        help="Send rows again that landed before this run, or, if the last refresh was stopped by "
        "a limit or died, before that one: it goes on. One whose new attempt brings no usable "
        "answer keeps the one that it had.",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Send rows again that failed for good, also of a run that stopped for them.",
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Fill a dataset that another spec filled until now."),
]
Limit = Annotated[int | None, typer.Option(help="Only the first N rows that need work.", min=1)]


@app.command(epilog="Example: `batchata run tickets.yaml --limit 20`")
def run(
    spec: Spec,
    direct: Annotated[bool, typer.Option("--direct", help="Run without Prefect.")] = False,
    refresh: Refresh = False,
    retry_failed: RetryFailed = False,
    take_over: TakeOver = False,
    limit: Limit = None,
    overrides: Set = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an enrichment to its end. Started again after a crash, it carries on.

    Before anything is sent, it says what that is expected to cost, and at most. If that is more
    than $10, or unknown, or another command keeps answers for free that would be paid for again,
    it asks whoever sits at the terminal.

    Exit codes: 0 every row succeeded or was up to date, 3 some rows failed, 4 stopped by a cost
    limit, 5 stopped by the time limit, 1 an error stopped it (trouble of the account, no usable
    answer, an unreadable batch) or its pilot did not hold, 2 the spec or the command is wrong, 130
    stopped by Ctrl-C, or by a no.
    """
    with boundary(spec=spec):
        receipt = run_spec(
            load(spec, overrides, limit),
            direct=direct,
            refresh=refresh,
            retry_failed=retry_failed,
            take_over=take_over,
            asks=not yes,
            given=spec,
        )
        _print_receipt(receipt, as_json=as_json, spec=spec)
    raise typer.Exit(int(receipt["exit_code"]))


def _print_receipt(receipt: dict[str, Any], *, as_json: bool, spec: str) -> None:
    from batchata_tasks.pipeline.receipt import Receipt

    if as_json:
        print_json(receipt)
    else:
        lines = Receipt(**receipt).lines()
        print_pairs(out, [(label, naming(text, spec)) for label, text in lines])


@app.command(epilog="Example: `batchata plan tickets.yaml --sample 3`")
def plan(
    spec: Spec,
    sample: Annotated[
        int,
        typer.Option(
            help="Print the first N requests, too, as they would be sent.", min=0, metavar="N"
        ),
    ] = 0,
    refresh: Refresh = False,
    retry_failed: RetryFailed = False,
    take_over: TakeOver = False,
    limit: Limit = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would send, why, and what it would cost. Sends nothing, spends nothing.

    Options that `run` has as well show what it would do with them.

    Exit codes: 0 the plan is shown, whatever it says; 1, 2 and 130 as of `run`.
    """
    from batchata_tasks.pipeline.start import refresh_mark
    from batchata_tasks.planning.summary import Options
    from batchata_tasks.reports.plan import preview

    with boundary(spec=spec):
        options = Options(refresh_mark(refresh), retry_failed, take_over)
        planned = preview(load(spec, overrides, limit), Settings(), options, sample=sample)
        print_result(planned, as_json=as_json, spec=spec)
        if planned.sample is not None and not as_json:
            print_text(out, f"\n{planned.sample.text()}")


app.command(
    epilog="Example: `batchata init tickets.csv` or `batchata init tickets.csv --key id --yes`"
)(init)


@app.command(epilog="Example: `batchata schema > spec.schema.json`")
def schema() -> None:
    """Print the JSON Schema of a spec, with which editors complete and check its keys.

    An editor with the YAML language server takes it from the first line of a spec:
    `# yaml-language-server: $schema=spec.schema.json`, a path from the spec's own folder.

    Exit codes: 0.
    """
    from batchata_tasks.spec.json_schema import schema_text

    write_on(out, schema_text())


app.command(
    epilog="Example: `batchata status`, `batchata status tickets.yaml --follow` or `batchata "
    "status out/tickets`"
)(status)

app.command(
    epilog=(
        "Example: `batchata show tickets.yaml --where \"category == 'billing'\"` or `batchata show "
        "tickets.yaml --key 17`"
    )
)(show)

app.command(
    epilog="Example: `batchata costs --by model --days 7` or `batchata costs --set-budget night=20`"
)(costs)


app.command(epilog="Example: `batchata revalidate tickets.yaml`")(revalidate)

app.command(epilog="Example: `batchata forget tickets.yaml --key 17`")(forget)

app.command(epilog="Example: `batchata rename tickets.yaml --column text=summary`")(rename)

app.command(epilog="Example: `batchata compact tickets.yaml`")(compact)


@app.command(epilog="Example: `batchata cancel tickets.yaml`")
def cancel(spec: Spec, overrides: ReadWith = None, as_json: AsJson = False) -> None:
    """Cancel the open batches of a spec and land what ran; what ran is paid for.

    Exit codes: 0 all have ended, or no run is open; 2 there is no dataset; 3 some did not end in
    time (`BATCHATA_CANCEL_GRACE`), so their rows are held; 1, 2 and 130 as of `run`.
    """
    from batchata_tasks.operations.cancel import cancel as cancel_spec

    with boundary(_CARRIES_ON, spec), shown_progress(spec) as progress:
        cancelled = cancel_spec(load(spec, overrides, None), Settings(), progress)
    print_result(cancelled, as_json=as_json, spec=spec)
    if cancelled.exit_code:
        raise typer.Exit(cancelled.exit_code)


@app.command(
    epilog="Example: `batchata reconcile` or `batchata reconcile --resend ckrdy5qavoutw5za5pyg`"
)
def reconcile(
    adopt: Annotated[
        list[str] | None,
        typer.Option(help="This chunk in doubt is that batch.", metavar="CHUNK=BATCH"),
    ] = None,
    resend: Annotated[
        list[str] | None,
        typer.Option(help="This held chunk was never accepted: free its rows.", metavar="CHUNK"),
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(help="Look for this chunk no more: a person decides.", metavar="CHUNK"),
    ] = None,
    cancel_batches: Annotated[
        list[str] | None,
        typer.Option("--cancel", help="Cancel a batch that nobody owns.", metavar="BATCH"),
    ] = None,
    abandon: Annotated[
        list[str] | None,
        typer.Option(
            help="Give up a batch of ours that does not end: its rows are planned again.",
            metavar="BATCH",
        ),
    ] = None,
    days: Annotated[float, typer.Option(help="How many days back to list batches.", min=0)] = 30,
    as_json: AsJson = False,
) -> None:
    """Compare the providers' batches with the ledger.

    Adopts batches of ours, reports those that nobody owns or that do not end, and settles chunks
    in doubt.

    Exit codes: 0 all providers with a key were asked, whatever was found; 1 one of them could not
    be; 2 the command was wrong.
    """
    from batchata_tasks.operations.reconcile import reconcile as reconcile_all
    from batchata_tasks.operations.reconcile_report import ReconcileRequest, pairs_of

    with boundary(_CARRIES_ON), shown_progress() as progress:
        request = ReconcileRequest(
            adopt=pairs_of(adopt or []),
            resend=tuple(resend or ()),
            hold=tuple(hold or ()),
            cancel=tuple(cancel_batches or ()),
            abandon=tuple(abandon or ()),
        )
        report = reconcile_all(Settings(), request, days=days, progress=progress)
    print_result(report, as_json=as_json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@app.command(epilog="Example: `batchata watch --once`")
def watch(
    once: Annotated[
        bool, typer.Option("--once", help="Look once, and end; else every minute.")
    ] = False,
    minutes: Annotated[
        float,
        typer.Option(help="For how long ended batches wait for the others of their run.", min=0),
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Look at all open batches of the ledger, and do what there is to do. Sends nothing.

    Flow runs that are suspended until their batches end are resumed, what a person cancelled is
    cancelled at the provider, and what no flow run is there for lands.

    Exit codes: 0 whatever was found; 1 the ledger, or Prefect's server, cannot be used; 2 the
    command or a setting is wrong; 130 stopped by Ctrl-C.
    """
    from batchata_tasks.cli.passes import passes

    with boundary(), shown_progress() as progress:
        for report in passes(minutes * 60, progress, once=once):
            print_result(report, as_json=as_json)


@app.command(
    epilog=(
        "Example: `batchata rehearse tickets.yaml --limit 5` or `batchata rehearse tickets.yaml "
        "--fault request_refusal:share=0.2`"
    )
)
def rehearse(
    spec: Spec,
    limit: Annotated[
        int | None,
        typer.Option(help="Rehearse with the first N rows; default: 20.", min=1),
    ] = None,
    fault: Faults = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run a spec against an emulator of its own, and show what would come of it. Free, without key.

    Ledger and output are its own, too, and thrown away at the end: those of the spec are neither
    read nor written. The answers are made up. Its limits hold, so that it ends as a run would. With
    a fault, a spec without `time_limit` has one of 60 s.

    Exit codes: as of `run`.
    """
    from batchata_tasks.cli.rehearsal import print_rehearsed
    from batchata_tasks.cli.rehearsal import rehearse as rehearse_spec

    stopped = "Stopped. Nothing of the rehearsal is left."
    with boundary(stopped, spec), shown_progress(spec) as progress:
        loaded = load(spec, overrides, None)
        rehearsed = rehearse_spec(loaded, progress, fault or (), rows=limit)
    print_rehearsed(loaded, spec, rehearsed, as_json=as_json)
    raise typer.Exit(int(rehearsed.receipt["exit_code"]))


def _list_faults(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        print_faults()
        raise typer.Exit


@app.command(
    epilog=(
        "Example: `batchata emulator --port 8089 --fault http_error_after:status=408,nth=1`, then "
        "set the variables that it prints."
    ),
)
def emulator(
    port: Annotated[
        int, typer.Option(help="Port on loopback; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    seconds: Annotated[float, typer.Option(help="How long a batch takes.", min=0)] = 5.0,
    fault: Faults = None,
    list_faults: Annotated[
        bool,
        typer.Option(
            "--list-faults",
            help="Print all kinds of faults with their settings, and what else can be controlled.",
            callback=_list_faults,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Imitate both providers' batch APIs on loopback: rehearse for free, with made-up answers.

    It serves until Ctrl-C, to runs, schedules and programs in whose environment the variables are
    set that it prints. To see what becomes of one spec, `batchata rehearse` has an emulator of its
    own.

    Exit codes: 0 Ctrl-C ended it; 1 the port cannot be opened; 2 an option is wrong.
    """
    from batchata_tasks.cli.demo import serve_emulator

    del list_faults
    with boundary():
        serve_emulator(port, seconds, fault or ())


@app.command(epilog="Example: `batchata demo`")
def demo(
    direct: Annotated[bool, typer.Option("--direct", help="Run without Prefect.")] = False,
) -> None:
    """Enrich 400 real package summaries with both providers' models, against the emulator. Free.

    What it makes is in `data/out/demo`, and what an earlier demo left there is deleted.

    Exit codes: as of `run`; 2 if something else lies in its folder.
    """
    from batchata_tasks.cli.demo import run_demo

    with boundary():
        code = run_demo(out, direct=direct)
    raise typer.Exit(code)
