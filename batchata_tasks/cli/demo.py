"""`batchata demo` and `batchata emulator`: the whole way, for free, against the emulator."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from batchata_tasks.cli.console import print_pairs
from batchata_tasks.cli.running import run_spec
from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.emulator import EmulatorProcess
from batchata_tasks.emulator.server import serve
from batchata_tasks.ledger import is_made
from batchata_tasks.pipeline.receipt import Receipt
from batchata_tasks.reports.rows import dataset_rows, how_to_open, rows_table
from batchata_tasks.spec.loading import load_spec

if TYPE_CHECKING:
    from rich.console import Console

    from batchata_tasks.spec.enrichment import EnrichmentSpec

FOLDER = Path("data/out/demo")
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
_BATCH_SECONDS = 2.0


def run_demo(out: Console, *, direct: bool) -> int:
    """Enrich the packages with a model of each provider; return the exit code.

    The demo has a folder of its own, with its own ledger, and starts from nothing each time.
    """
    _clear()
    assets = _assets()
    settings = {
        "BATCHATA_LEDGER_URL": f"sqlite:///{FOLDER.absolute() / 'ledger.db'}",
        "BATCHATA_POLL_INTERVAL": "0.5",
        "BATCHATA_CODE_ROOTS": str(assets),
    }
    with EmulatorProcess(mode="seconds", n=_BATCH_SECONDS) as emulator:
        os.environ.update(settings | emulator.env())
        specs = [_spec(assets, provider, model) for provider, model in MODELS.items()]
        codes = [_show(out, spec, direct=direct) for spec in specs]
        out.print(Text("\nThe same again", style="bold"))
        again = run_spec(specs[0], direct=direct)
        out.print(
            f"{again['plan']['up_to_date']} rows are up to date: nothing was sent, nothing spent.\n",
            highlight=False,
        )
        codes.append(int(again["exit_code"]))
    out.print(
        "The answers are made up by the emulator; a real model reads the summaries.",
        style="dim",
        highlight=False,
    )
    out.print(rows_table(specs[0], dataset_rows(specs[0], 5, only_failed=False), out.width))
    out.print(how_to_open(specs[0]), markup=False, highlight=False, soft_wrap=True)
    out.print("\nNext: README.md, 'With a real key'.", highlight=False)
    return max(codes)


def _clear() -> None:
    """Delete what an earlier demo made, and nothing else."""
    for provider in MODELS:
        dataset = DatasetFolder(str(FOLDER / provider))
        if dataset.owner() is not None:
            shutil.rmtree(dataset.own)
            for part in dataset.data.glob("part-*.parquet"):
                part.unlink()
    ledger = FOLDER.absolute() / "ledger.db"
    if is_made(
        f"sqlite:///{ledger}"
    ):  # else it is none, or somebody else's database, which is told
        for suffix in ("", "-wal", "-shm"):
            ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)


def _show(out: Console, spec: EnrichmentSpec, *, direct: bool) -> int:
    out.print(Text(f"\n400 package summaries, {spec.model}", style="bold"))
    receipt = run_spec(spec, direct=direct)
    print_pairs(Receipt(**receipt).lines())
    return int(receipt["exit_code"])


def _spec(assets: Path, provider: str, model: str) -> EnrichmentSpec:
    changes = {
        "name": f"demo-{provider}",
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


def _assets() -> Path:
    """Return the folder that holds the demo's table, spec and response model.

    They lie in the project's own folders; the wheel carries a copy.
    """
    shipped = Path(__file__).parent / "_demo"
    return shipped if shipped.is_dir() else Path(__file__).parents[2]


def serve_emulator(port: int, seconds: float) -> None:
    """Serve until interrupted, telling how to point the SDKs at it."""

    def tell(url: str) -> None:
        sys.stdout.write(
            f"The emulator listens on {url}. In another terminal:\n\n"
            f"  export ANTHROPIC_BASE_URL={url}/anthropic ANTHROPIC_API_KEY=emulator-key\n"
            f"  export OPENAI_BASE_URL={url}/openai/v1 OPENAI_API_KEY=emulator-key\n\n"
            "Its answers are made up, and it forgets everything when it stops (Ctrl-C).\n"
        )
        sys.stdout.flush()

    try:
        serve(port, mode="seconds", n=seconds, on_ready=tell)
    except OSError as error:
        message = f"--port: {port} cannot be opened: {error.strerror}; name another port, or 0 for a free one."
        raise StorageError(message) from error
