"""`batchata init`: a first spec for a table, by questions on a terminal or by flags."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchata_tasks.cli.console import boundary, out
from batchata_tasks.common.errors import InputError, SpecError
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.reports.printing import print_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.operations.draft.facts import TableFacts
    from batchata_tasks.operations.draft.keys import ChosenKey
    from batchata_tasks.operations.draft.writing import Draft, Wanted
    from batchata_tasks.sources.forms import Form

_MODELS = {"ANTHROPIC_API_KEY": "claude-haiku-5-5", "OPENAI_API_KEY": "gpt-6-luna"}


Table = Annotated[
    str,
    typer.Argument(
        help="The table: whatever `source` of a spec may be, such as a CSV, JSONL or Parquet file, "
        "a pattern of them, a folder of Parquet files, or '{sql: \"SELECT …\"}'. A pattern of "
        "documents, such as 'inbox/*.pdf', is a table of them.",
        metavar="TABLE",
    ),
]
KeyColumns = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that identifies a row; may be repeated. Default: the likeliest that is unique "
        "and never null in all rows.",
        metavar="COLUMN",
    ),
]
Sheet = Annotated[str | None, typer.Option(help="Sheet of a workbook; default: the first.")]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="What the model is to do with a row, in words; or a template, with `{{ column }}`."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Model; default: a small one of the provider whose API key is set."),
]
Output = Annotated[
    str | None, typer.Option(help="Folder of the dataset, from FOLDER; default: out/NAME.")
]


def init(
    table: Table,
    name: Annotated[
        str | None, typer.Option(help="Name of the spec; default: that of the table.")
    ] = None,
    key: KeyColumns = None,
    sheet: Sheet = None,
    prompt: Prompt = None,
    model: Model = None,
    folder: Annotated[Path, typer.Option(help="Folder for the files; made if need be.")] = Path(),
    output: Output = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the guesses.")] = False,
) -> None:
    """Write a first spec for a table, with all that belongs to it, to be changed as you like.

    Writes NAME.yaml (the spec, with the table's columns as comments, a pilot and a cost limit),
    models.py (what an answer looks like), prefect.yaml and automations.yaml (for a Prefect server),
    spec.schema.json (for editors) and .gitignore. A file that exists is left as it is: deployments
    are then in prefect.NAME.yaml, the response model in models_NAME.py, and .gitignore gets the
    lines that it lacks. Sends nothing.

    Exit codes: 0 all was written; 2 nothing was, since the table, the key or a file was not right.
    """
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.operations.draft.keys import ChosenKey
    from batchata_tasks.operations.draft.prompt import DOCUMENT_TASK, TASK
    from batchata_tasks.operations.draft.writing import Wanted, default_name, draft, write

    with boundary():
        asks = _asks(yes=yes)
        source, facts = _look(table, sheet)
        task = DOCUMENT_TASK if facts.of_documents else TASK
        name = name or _answer("Name of the spec", default_name(source), asks=asks)
        wanted = Wanted(
            source,
            name,
            ChosenKey(key) if key else _key(facts, asks=asks),
            model or _answer("Model", _default_model(), asks=asks),
            prompt or _answer("What is the model to do with each row", task, asks=asks),
            folder,
            output or f"out/{name}",
        )
        drafted = draft(wanted, facts, Settings())
        write(drafted, folder)
        _print_next(drafted, wanted)


def _look(table: str, sheet: str | None) -> tuple[str | Form, TableFacts]:
    """Return a table as a spec names it, and what it holds; say how large it is."""
    from batchata_tasks.operations.draft.facts import look_at, source_of

    source = source_of(table, sheet)
    facts = look_at(source)
    print_text(out, f"{source}: {pluralize(len(facts.names), 'column')}")
    if len(facts.sheets) > 1:
        chosen, names = sheet or facts.sheets[0], ", ".join(map(printable, facts.sheets))
        print_text(out, f"Sheets: {names}. This is {printable(chosen)}; --sheet names another.")
    return source, facts


def _asks(*, yes: bool) -> bool:
    """Whether to ask: on a terminal, unless the guesses are to be taken.

    Raises:
        SpecError: there is nobody to ask.
    """
    if yes:
        return False
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "there is no terminal on which to ask; add --yes to take the guesses."
        raise SpecError(message)
    return True


def _answer(
    question: str,
    guess: str | None,
    read: Callable[[str], str] = str.strip,
    *,
    asks: bool,
) -> str:
    """Return the answer to a question, which is asked again if `read` refuses it, or the guess."""
    if not asks:
        return guess or ""
    try:
        return str(typer.prompt(question, default=guess, value_proc=read))
    except typer.Abort:  # Ctrl-C or the end of the input
        raise KeyboardInterrupt from None


def _key(facts: TableFacts, *, asks: bool) -> ChosenKey:
    from batchata_tasks.operations.draft.keys import ChosenKey, check_key, guess_key

    def columns(text: str) -> list[str]:
        # a name may hold a comma
        return [text] if text in facts.names else [one.strip() for one in text.split(",")]

    def read(text: str) -> str:
        try:
            check_key(facts, columns(text))
        except InputError as error:
            raise typer.BadParameter(printable(str(error))) from error
        return text

    guess: ChosenKey | None = None
    try:
        guess = guess_key(facts)
    except SpecError as error:
        if not asks:
            raise
        print_text(out, str(error))
    if not asks and guess:
        return guess
    question = "Key: the column, or columns with commas between, that identify a row"
    guessed = ", ".join(guess.names) if guess else None
    answer = _answer(question, guessed, read, asks=asks)
    return guess if guess and answer == guessed else ChosenKey(columns(answer))


def _default_model() -> str:
    models = [model for variable, model in _MODELS.items() if os.environ.get(variable)]
    return [*models, *_MODELS.values()][0]


def _print_next(drafted: Draft, wanted: Wanted) -> None:
    """Say what was written, and what to do next."""
    from batchata_tasks.providers import provider_name

    folder = "" if wanted.folder.resolve() == Path.cwd() else f" in {wanted.folder}"
    print_text(out, f"Wrote {', '.join(drafted.files)}{folder}.")
    key = ", ".join(name if name.strip() else repr(name) for name in wanted.key.names)
    print_text(out, f"Key: {key}. Look at the prompt, and at the response model.")
    for note in drafted.notes:
        print_text(out, note)
    spec = shlex.quote(drafted.spec)
    variable = f"{provider_name(wanted.model).upper()}_API_KEY"
    steps = [
        (f"cd {shlex.quote(str(wanted.folder))}", "") if folder else None,
        (f"batchata rehearse {spec}", "the first rows for free, with made-up answers"),
        (f"export {variable}=your-key", "") if not os.environ.get(variable) else None,
        (f"batchata plan {spec}", "what it would cost; sends nothing"),
        (f"batchata run {spec} --limit 20", "the first rows for real"),
        (f"batchata show {spec}", "their answers; then run it without --limit"),
    ]
    print_text(out, "\nNext:")
    width = max(len(step[0]) for step in steps if step)
    for step in steps:
        if step:
            print_text(out, f"  {step[0]:{width}}  {step[1]}".rstrip())
