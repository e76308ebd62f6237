"""Shared by the commands: where they print, how they read specs, how errors become exit codes."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from batchata_tasks.cli.interrupts import INTERRUPTED, raise_at_ctrl_c
from batchata_tasks.common import files
from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import BatchataError, DeclinedError, InputError, SpecError
from batchata_tasks.progress.console import for_console
from batchata_tasks.progress.output import write_on
from batchata_tasks.reports.printing import print_pairs, print_text
from batchata_tasks.spec.loading import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

out, err = Console(), Console(stderr=True)

Spec = Annotated[str, typer.Argument(help="Path of the spec (YAML or JSON).", metavar="SPEC")]
DATASET = "Path of a spec; or the folder of a Batch's results, or of an enriched frame's."
Dataset = Annotated[str, typer.Argument(help=DATASET, metavar="SPEC")]
KEYS = (
    "Dates and times in ISO 8601, objects and lists as JSON. If the key has several columns: "
    "`--key a=1 --key b=2`, or one JSON object."
)
"""How a row's key is written."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ReadWith = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Read the spec with a key changed: `key=value`.", metavar="KEY=VALUE"
    ),
]

Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        help="A fault to rehearse (`batchata emulator --list-faults` has them); may be repeated.",
        metavar="KIND[:SETTING=VALUE,…]",
    ),
]


class Result(Protocol):
    """The result of a command, which can be printed either way."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ...

    def lines(self) -> list[tuple[str, str]]:
        """Return (label, value) pairs."""
        ...


@contextmanager
def boundary(stopped: str = "Stopped.", spec: str | None = None) -> Generator[None, None, None]:
    """Turn errors into a sentence and an exit code; on Ctrl-C, print `stopped`.

    This is the only place that does so. `spec` is what the command was given as SPEC.
    """
    try:
        raise_at_ctrl_c()
        yield
    except BatchataError as error:
        print_text(err, f"Error: {naming(str(error), spec)}", style="red")
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
    except KeyboardInterrupt:
        print_text(err, stopped, style="yellow")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def shown_progress(
    spec: str | None = None, *, asks: bool = False
) -> Generator[Progress, None, None]:
    """Show the progress of a command, to which `spec` was given as SPEC; `asks`: see `watched`."""
    with for_console(err, asks=asks, worded=partial(naming, given=spec)) as progress:
        yield progress


@contextmanager
def watched(spec: str | None = None, *, asks: bool = False) -> Generator[Progress, None, None]:
    """Show the progress of a command that may send batches; on Ctrl-C, say what goes on.

    If it `asks`, a person at a terminal has to agree to what costs much.
    """
    with shown_progress(spec, asks=asks) as progress:
        try:
            yield progress
        except (KeyboardInterrupt, DeclinedError):
            progress.close()
            print_stopped(sent=progress.sent)
            raise typer.Exit(INTERRUPTED) from None


def print_stopped(*, sent: bool) -> None:
    """Say what goes on after Ctrl-C, and what to do about it."""
    text = "Nothing was sent."
    if sent:
        text = "Batches that were sent go on at the provider; the same command lands them."
    print_text(err, f"Stopped. {text}", style="yellow")


def is_folder(given: str, overrides: list[str] | None) -> bool:
    """Whether a command was given a dataset's folder as SPEC, and not the path of a spec.

    Raises:
        SpecError: it is one, and keys of a spec are to be changed.
    """
    if not files.is_folder(given):
        return False
    if overrides:
        message = f"--set: {given} is a folder and no spec, whose keys can be set; leave it out."
        raise SpecError(message)
    return True


def load(spec: str, overrides: list[str] | None, limit: int | None) -> EnrichmentSpec:
    """Read a spec with the changes from the command line.

    Raises:
        SpecError: it is wrong, or cannot be read.
    """
    if files.is_folder(spec):
        message = (
            f"SPEC: {spec} is a folder; name the file of the spec. (The folder of a dataset is "
            "what `batchata status`, `show` and `forget` take.)"
        )
        raise SpecError(message)
    changes = [*(overrides or []), *([f"limit={limit}"] if limit else [])]
    return load_spec(spec, changes)


def print_json(value: Any, default: Callable[[Any], str] | None = None) -> None:
    """Print a value as one line of JSON; `default` turns what JSON lacks into text."""
    write_on(out, json.dumps(value, default=default) + "\n")


def print_result(result: Result, *, as_json: bool, spec: str | None = None) -> None:
    """Print the result of a command, to which `spec` was given as SPEC."""
    with boundary():
        if as_json:
            print_json(result.to_json())
        else:
            print_pairs(out, [(label, naming(text, spec)) for label, text in result.lines()])
