"""What the commands share: where they print, how they read specs, and the one place where errors become exit codes."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchata_tasks.common.errors import BatchataError, InputError
from batchata_tasks.progress.console import for_console
from batchata_tasks.spec.loading import load_spec

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

out, err = Console(), Console(stderr=True)
INTERRUPTED = 130

Spec = Annotated[str, typer.Argument(help="Path of the spec (YAML or JSON).", metavar="SPEC")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ReadWith = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Read the spec with a key changed: `key=value`.", metavar="KEY=VALUE"
    ),
]


@contextmanager
def boundary(stopped: str = "Stopped.") -> Generator[None, None, None]:
    """Turn errors into a sentence and an exit code; the one place that does. Ctrl-C is answered with `stopped`."""
    try:
        yield
    except BatchataError as error:
        err.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
    except KeyboardInterrupt:
        err.print(stopped, style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def watched() -> Generator[Progress, None, None]:
    """Show the progress of what may send batches; Ctrl-C tells what it leaves."""
    with for_console(err) as progress:
        try:
            yield progress
        except KeyboardInterrupt:
            progress.close()
            say_stopped(sent=progress.sent)
            raise typer.Exit(INTERRUPTED) from None


def say_stopped(*, sent: bool) -> None:
    """Tell people what Ctrl-C leaves, and the remedy."""
    left = (
        "Batches that were sent go on at the provider; the same command lands them."
        if sent
        else "Nothing was sent."
    )
    err.print(f"Stopped. {left}", style="yellow", soft_wrap=True)


def load(spec: str, overrides: list[str] | None, limit: int | None) -> EnrichmentSpec:
    """Read a spec with what the command line says otherwise."""
    return load_spec(spec, [*(overrides or []), *([f"limit={limit}"] if limit else [])])


def print_pairs(lines: list[tuple[str, str]]) -> None:
    """Print a receipt or a plan: what, value."""
    if not out.is_terminal:  # no padding or folding in logs and pipes
        width = max(len(what) for what, _ in lines)
        out.file.write("".join(f"{what.ljust(width)}  {value}\n" for what, value in lines))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, value in lines:
        table.add_row(what, Text(value))
    out.print(table, highlight=False)


def show_found(found: Any, *, as_json: bool) -> None:
    """Print what a command found: something with `to_json` and `lines`."""
    if as_json:
        sys.stdout.write(json.dumps(found.to_json()) + "\n")
    else:
        print_pairs(found.lines())
