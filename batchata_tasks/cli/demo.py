"""`batchata demo` and `batchata emulator`: complete runs, for free, against the emulator."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.cli.demo_folder import FOLDER, clear, ledger_url, spec_name
from batchata_tasks.cli.fault_option import fault_rules
from batchata_tasks.cli.running import run_spec
from batchata_tasks.common.errors import StorageError
from batchata_tasks.emulator import EmulatorProcess
from batchata_tasks.emulator.server import serve
from batchata_tasks.pipeline.receipt import Receipt
from batchata_tasks.progress.output import write_text
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.reports.passages import passage_lines
from batchata_tasks.reports.printing import print_pairs, print_table, print_text
from batchata_tasks.reports.rows import how_to_open, rows_table
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from batchata_tasks.spec.loading import load_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from batchata_tasks.spec.enrichment import EnrichmentSpec

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
INVOICES = "invoices"
_SHOWN = "invoice-04.pdf"  # in German, of two pages
_BATCH_SECONDS = 2.0


def run_demo(out: Console, *, direct: bool) -> int:
    """Enrich packages with a model of each provider, then invoices; return the exit code.

    The demo has a folder and a ledger of its own; what an earlier demo left there is deleted.
    """
    clear([*MODELS, INVOICES])
    assets = _assets()
    settings = {
        "BATCHATA_LEDGER_URL": ledger_url(),
        "BATCHATA_POLL_INTERVAL": "0.5",
        "BATCHATA_CODE_ROOTS": str(assets),
    }
    with EmulatorProcess(mode="seconds", n=_BATCH_SECONDS) as emulator:
        os.environ.update(settings | emulator.env())
        specs = [_spec(assets, provider, model) for provider, model in MODELS.items()]
        what = "400 package summaries"
        codes = [int(_run(out, spec, what, direct=direct)["exit_code"]) for spec in specs]
        print_text(out, "\nThe same again", style="bold")
        again = run_spec(specs[0], direct=direct)
        same = again["plan"]["up_to_date"]
        print_text(out, f"{same} rows are up to date: nothing was sent, nothing spent.\n")
        codes.append(int(again["exit_code"]))
        invoices = _invoices(assets)
        read = _run(out, invoices, "10 invoices", direct=direct)
        # one is a scan, of which nothing could be cited
        is_right = read["outcomes"] == {"errored": read["plan"]["bad_documents"], "succeeded": 9}
        codes.append(0 if is_right else int(read["exit_code"]))
    made_up = "The answers are made up by the emulator; a real model reads the summaries."
    print_text(out, made_up, style="dim")
    rows = dataset_rows(specs[0], Selection(5))
    print_table(out, rows_table(specs[0], rows, out.width))
    print_text(out, how_to_open(specs[0]))
    _show_passages(out, invoices)
    print_text(out, "\nNext, with a table of your own: batchata init TABLE")
    return max(codes)


def _show_passages(out: Console, invoices: EnrichmentSpec) -> None:
    row = one_row(invoices, [_SHOWN])
    print_text(out, f"\nWhat {_SHOWN} says, and where it says so", style="bold")
    print_text(out, "\n".join(passage_lines(row.answers, row.row["_citations"])))


def _run(out: Console, spec: EnrichmentSpec, what: str, *, direct: bool) -> dict[str, Any]:
    print_text(out, f"\n{what}, {spec.model}", style="bold")
    receipt = run_spec(spec, direct=direct)
    print_pairs(out, Receipt(**receipt).lines())
    return receipt


def _spec(assets: Path, provider: str, model: str) -> EnrichmentSpec:
    changes = {
        "name": spec_name(provider),
        "model": model,
        "source": assets / "data/packages.csv",
        "response_model": f"{assets / 'deployments/models.py'}:Topic",
        "output": FOLDER / provider,
        "items_per_batch": 100,
    }
    return load_spec(
        assets / "deployments/specs/package-topics.yaml",
        [f"{key}={value}" for key, value in changes.items()],
    )


def _invoices(assets: Path) -> EnrichmentSpec:
    changes = {
        "name": spec_name(INVOICES),
        "source": {"documents": str(assets / "data/invoices/*.pdf")},
        "document_root": assets / "data/invoices",
        "response_model": f"{assets / 'deployments/models.py'}:Invoice",
        "output": FOLDER / INVOICES,
    }
    return load_spec(
        assets / "deployments/specs/invoices.yaml",
        [f"{key}={value}" for key, value in changes.items()],
    )


def _assets() -> Path:
    """Return the folder with the demo's table, spec and response model.

    In a checkout this is the project's root; a wheel contains copies.
    """
    shipped = Path(__file__).parent / "_demo"
    return shipped if shipped.is_dir() else Path(__file__).parents[2]


def serve_emulator(port: int, seconds: float, faults: Sequence[str]) -> None:
    """Serve until interrupted; print how to point the SDKs at the emulator.

    Raises InputError if a fault is not one.
    """
    rules = fault_rules(faults)

    def print_usage(url: str) -> None:
        write_text(
            sys.stdout,
            f"The emulator listens on {url}. In another terminal:\n\n"
            f"  export ANTHROPIC_BASE_URL={url}/anthropic ANTHROPIC_API_KEY=emulator-key\n"
            f"  export OPENAI_BASE_URL={url}/openai/v1 OPENAI_API_KEY=emulator-key\n\n"
            "Its answers are made up, and count for nothing at a real endpoint. "
            "It forgets everything when it stops (Ctrl-C).\n",
        )

    try:
        serve(port, mode="seconds", n=seconds, faults=rules, on_ready=print_usage)
    except OSError as error:
        message = (
            f"--port: {port} cannot be opened: {error.strerror}; name another port, or 0 for a "
            "free one."
        )
        raise StorageError(message) from error
