"""The commands that keep a dataset in order, and send nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from batchata_tasks.cli.console import (
    KEYS,
    AsJson,
    Dataset,
    ReadWith,
    Spec,
    boundary,
    is_folder,
    load,
    print_result,
    shown_progress,
)
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings

_CARRIES_ON = "Stopped half-way; the same command carries on."


def revalidate(
    spec: Spec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would change, and write nothing.")
    ] = False,
    mark_invalid: Annotated[
        bool,
        typer.Option(
            "--mark-invalid",
            help="Make rows invalid that only a stricter validator refuses, so that they alone are "
            "sent again.",
        ),
    ] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Read the kept answers by today's response model, for free: rows that it takes become valid.

    For a response model that was mended, or changed in its validators: what the dataset keeps of
    each answer (`_response`) is read anew. Rows that today's model does not take are told, and stay
    as they are: the next run sends what another model answered; what landed under the same schema,
    and only a stricter validator refuses, stays valid, and is not sent again. With --mark-invalid
    it is as if such a row had landed invalid: its columns are empty (`_response` keeps the answer),
    and the next run sends it, or, if its attempts are used up, one with --retry-failed.

    A run that stopped half-way has to be finished, or cancelled, first. For a Batch, and for
    frames, it is `batchata_tasks.revalidate(folder, ResponseModel)` in Python.

    Exit codes: 0 done, whatever was found; 2 a run is unfinished, or there is no dataset; 1 and
    130 as of `run`.
    """
    from batchata_tasks.operations.revalidate import revalidate as revalidate_spec

    with boundary(_CARRIES_ON, spec), shown_progress(spec) as progress:
        if is_folder(spec, overrides):
            raise _without_model(spec)
        loaded = load(spec, overrides, None)
        report = revalidate_spec(
            loaded, Settings(), progress, dry_run=dry_run, mark_invalid=mark_invalid
        )
    print_result(report, as_json=as_json)


def _without_model(folder: str) -> SpecError:
    """Return the error for a dataset's folder, which does not tell today's response model."""
    return SpecError(
        f"SPEC: {folder} is a folder, which does not tell today's response model: name the file of "
        "the spec, or, for a Batch or frames, do it in Python: "
        f"`batchata_tasks.revalidate({folder!r}, ResponseModel)`, with the class of today."
    )


def compact(spec: Spec, overrides: ReadWith = None, as_json: AsJson = False) -> None:
    """Merge the dataset's small files into few large ones; rows stay as they are.

    The files of earlier runs in `_batchata` are packed into zip files. Runs do all this by
    themselves whenever many have gathered, so that this is for a dataset that is to be handed over,
    or that an earlier version filled.

    Exit codes: 0 done; 1, 2 and 130 as of `run`.
    """
    from batchata_tasks.operations.compact import compact as compact_spec

    with boundary(_CARRIES_ON, spec), shown_progress(spec) as progress:
        report = compact_spec(load(spec, overrides, None), Settings(), progress)
    print_result(report, as_json=as_json)


def rename(
    spec: Spec,
    column: Annotated[
        list[str],
        typer.Option(
            help=(
                "The column's name until now, and its new one; may be repeated. If a name has `=` "
                'in it, as a JSON object: `--column \'{"a=b": "c"}\'`.'
            ),
            metavar="OLD=NEW",
        ),
    ],
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Rename columns of the source in the dataset, for free: no row is sent again for it.

    Rename them in the source and in the spec first (key, columns, prompt), and change nothing else
    meanwhile. A column may be part of the key, carried along, or only used by the prompt. Those
    that were renamed together are told together; two may have exchanged their names.

    Exit codes: 0 done; 2 rows are on their way, the dataset has no such column, has the new name
    already, or the prompt changed in more than the names; 1 and 130 as of `run`.
    """
    from batchata_tasks.operations.rename import rename as rename_columns

    with boundary(_CARRIES_ON, spec), shown_progress(spec) as progress:
        report = rename_columns(load(spec, overrides, None), column, Settings(), progress)
    print_result(report, as_json=as_json)


def forget(
    spec: Dataset,
    key: Annotated[list[str], typer.Option(help=f"The row's key. {KEYS}", metavar="KEY")],
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Take one row and its texts out of the dataset, its requests, answers and keys.

    Given a folder, it does so in whatever fills that: of a Batch, the key is the job's id. In
    Python it is `batchata_tasks.forget`.

    What it cost stays in ledger and budgets. The provider keeps its own copies for about a month.
    If the source still has the row (or a program adds the job again), the next run sends it again.
    Copies of the dataset's folder are the same dataset: the next run or command that changes one
    takes the row out of it, too.

    Exit codes: 0 done; 2 no row has the key, or a batch still has it; 1 and 130 as of `run`.
    """
    from batchata_tasks.operations.forget import forget as forget_row
    from batchata_tasks.operations.forget import forget_in

    with boundary(_CARRIES_ON, spec), shown_progress(spec) as progress:
        if is_folder(spec, overrides):
            report = forget_in(spec, lambda _names: key, Settings(), progress)
        else:
            report = forget_row(load(spec, overrides, None), key, Settings(), progress)
    print_result(report, as_json=as_json, spec=spec)
