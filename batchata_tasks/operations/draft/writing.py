"""Drafts a spec for a table, and writes it with its files; nothing is ever overwritten."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import make_folder, storage_errors
from batchata_tasks.operations.draft.files import (
    AUTOMATIONS,
    CLASS,
    automations_text,
    ignored,
    models_text,
    prefect_text,
)
from batchata_tasks.operations.draft.keys import TAKEN, check_key
from batchata_tasks.operations.draft.prompt import (
    DOCUMENT_SYSTEM,
    SYSTEM,
    prompt_of,
    remarks,
)
from batchata_tasks.operations.draft.spec_file import SpecDraft, spec_text
from batchata_tasks.planning.hints import literal
from batchata_tasks.pricing.lookup import batch_rates, unpriced
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.providers import provider_name, provider_type
from batchata_tasks.sources.forms import DocumentsSource, SheetSource
from batchata_tasks.sources.opening import files_of
from batchata_tasks.spec.json_schema import NAME as SCHEMA
from batchata_tasks.spec.json_schema import PATH as SCHEMA_PATH
from batchata_tasks.spec.loading import parse_spec
from batchata_tasks.spec.overlap import refuse_overlap
from batchata_tasks.spec.yaml_text import parse_yaml

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.operations.draft.facts import TableFacts
    from batchata_tasks.operations.draft.keys import ChosenKey
    from batchata_tasks.sources.forms import Form

_GLOB = re.compile(r"[*?\[]")
_PREFECT = "prefect.yaml"
_IGNORE = ".gitignore"


@dataclass(frozen=True)
class Wanted:
    """What a draft is to be: `task` is a template, or words that the table's columns follow.

    `output` is a path from `folder`, in which all files are written.
    """

    table: str | Form
    name: str
    key: ChosenKey
    model: str
    task: str
    folder: Path
    output: str


@dataclass
class Draft:
    """The files of a draft, by their names, and what is to be said about those that existed.

    `ignored` are lines that the .gitignore which is there lacks.
    """

    spec: str
    files: dict[str, str] = field(default_factory=dict[str, str])
    ignored: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def default_name(table: str | Form) -> str:
    """Return the name of a spec for a table: that of its file or folder."""
    if isinstance(table, SheetSource):
        sheet = re.sub(r"[^A-Za-z0-9_-]+", "-", table.sheet).strip("-_")
        return f"{default_name(table.file)}-{sheet}"[:100].rstrip("-") if sheet else "sheet"
    if isinstance(table, DocumentsSource):
        return default_name(table.documents)
    if not isinstance(table, str):
        return "query"
    parts = PurePosixPath(table.rstrip("/")).parts or ("table",)
    # of a pattern, what stands before the first wildcard, in the file's name or above it
    plain = [re.split(_GLOB, part.partition(".")[0])[0] for part in reversed(parts)]
    names = (re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_") for text in plain)
    return next((name[:100] for name in names if name and name != "prefect"), "table")


def draft(wanted: Wanted, table: TableFacts, settings: Settings) -> Draft:
    """Return the files that a draft consists of; nothing is written.

    Raises:
        InputError: the key, the model, the name or the template will not do, or the spec exists.
    """
    _check_model(wanted.model, settings)
    check_key(table, wanted.key.names)
    for file in files_of(wanted.table):
        refuse_overlap(file, wanted.folder / wanted.output, may_lack=table.of_documents)
    spec_file = _spec_file(wanted)
    drafted = Draft(spec_file)
    models = _free(wanted, "models.py", f"models_{re.sub(r'[^A-Za-z0-9]', '_', wanted.name)}.py")
    deployments = _free(wanted, _PREFECT, f"prefect.{wanted.name}.yaml")
    spec = _spec(wanted, table, models)
    text = spec_text(spec, table)
    # what is read back is what was meant, whatever the table's columns are called
    assert parse_yaml(text) == spec.values(table)  # noqa: S101 - see above
    parse_spec(spec.values(table))
    drafted.files = {
        spec_file: text,
        models: models_text([*wanted.key.names, *spec.carried]),
        deployments: prefect_text(wanted.name, spec_file, deployments),
    }
    if (doubt := spec.key.doubt(spec.rows)) is not None:
        drafted.notes.append(f"The key is doubtful: {doubt}.")
    drafted.notes += _left_out(spec, table)
    for name, usual in ((models, "models.py"), (deployments, _PREFECT)):
        if name != usual:
            deploy = f"; `prefect --no-prompt deploy --all --prefect-file {name}` deploys it"
            more = deploy if usual == _PREFECT else ""
            drafted.notes.append(f"{usual} was there and stays as it is: see {name}{more}.")
    _add_shared(drafted, wanted)
    return drafted


def write(drafted: Draft, folder: Path) -> None:
    """Write the files of a draft: all of them, or none; then add to the .gitignore that is there.

    Raises:
        StorageError: the storage refuses.
        SpecError: a file of that name came in between.
    """
    with storage_errors("writing the draft"), ExitStack() as unless_all:
        make_folder(folder)
        for name, text in drafted.files.items():
            path = folder / name
            try:
                stream = path.open("x", encoding="utf-8")
            except FileExistsError:
                message = f"{path} exists already, and nothing was written; start again."
                raise SpecError(message) from None
            unless_all.callback(path.unlink)
            with stream:
                stream.write(text)
        _add_lines(folder / _IGNORE, drafted.ignored)
        unless_all.pop_all()


def _add_lines(path: Path, lines: list[str]) -> None:
    """Add lines to the end of a text, with the line ends that it has."""
    if not lines:
        return
    text = path.read_bytes()
    end = b"\r\n" if b"\r\n" in text else b"\n"
    missing = b"" if not text or text.endswith(b"\n") else end
    with path.open("ab") as stream:
        stream.write(missing + b"".join(line.encode() + end for line in lines))


def _check_model(model: str, settings: Settings) -> None:
    """Refuse a model that the cost limit of the draft could not hold."""
    provider = provider_name(model)
    provider_type(provider).check_model(model, 1)
    if batch_rates(provider, model, load_prices(settings.prices)) is None:
        raise SpecError(unpriced("--model", provider, model, "the draft's cost limit"))


def _spec_file(wanted: Wanted) -> str:
    name = f"{wanted.name}.yaml"
    if name == _PREFECT:
        message = f"--name: {name} is the file of Prefect's deployments; give another name."
        raise SpecError(message)
    if (wanted.folder / name).exists():
        message = (
            f"--name: {wanted.folder / name} exists already, and nothing was written; give another "
            "--name, another --folder, or remove the file."
        )
        raise SpecError(message)
    return name


def _free(wanted: Wanted, *names: str) -> str:
    """Return the first of some names that no file has."""
    for name in names:
        if not (wanted.folder / name).exists():
            return name
    message = (
        f"--folder: {' and '.join(names)} exist already in {wanted.folder}, and nothing was "
        "written; give another --folder or another --name."
    )
    raise SpecError(message)


def _spec(wanted: Wanted, table: TableFacts, models: str) -> SpecDraft:
    key = wanted.key.names
    prompt, used = prompt_of(table, key, wanted.task)
    rows, with_nulls = table.nulls(used or key)
    of_files = ["name", "pages"] if table.of_documents else []
    carried = [
        name
        for name in (*used, *of_files)
        if name not in key and name not in TAKEN and table.column(name).is_plain
    ]
    return SpecDraft(
        name=wanted.name,
        source=_from_folder(wanted.table, wanted.folder),
        key=wanted.key,
        model=wanted.model,
        system=DOCUMENT_SYSTEM if table.of_documents else SYSTEM,
        prompt=prompt.rstrip("\n"),
        response_model=f"{models}:{CLASS}",
        output=wanted.output,
        carried=carried,
        rows=rows,
        with_nulls=[name for name in used if name in with_nulls],
        remarks=remarks(table, key, used, carried),
    )


def _left_out(spec: SpecDraft, table: TableFacts) -> list[str]:
    """Return a sentence about a column without a name of which the draft makes no use."""
    unnamed = [one.name for one in table.columns if not one.is_named]
    if not unnamed or not {*spec.key.names, *spec.carried}.isdisjoint(unnamed):
        return []
    note = (
        "A column has no name (the index of a data frame, say) and is left out; name it in the "
        f"table, or write row[{literal(unnamed[0])}] into the prompt."
    )
    return [note]


def _from_folder(table: str | Form, folder: Path) -> str | dict[str, Any]:
    """Return the source as the spec in a folder has it; a URL or a whole path stays.

    Raises:
        SpecError: a query names files from another folder.
    """
    is_here = folder.resolve() == Path.cwd()
    if isinstance(table, SheetSource):
        return {"file": _from_folder(table.file, folder), "sheet": table.sheet}
    if isinstance(table, DocumentsSource):
        return {"documents": _from_folder(table.documents, folder)}
    if not isinstance(table, str):
        if files_of(table) and not is_here:
            message = (
                "--folder: a query names its files from the folder that it runs in; change into "
                f"{folder} first, and name them from there."
            )
            raise SpecError(message)
        return table.model_dump(exclude_defaults=True)
    path = Path(table)
    if path.is_absolute() or table.startswith("~") or ("://" in table and not path.exists()):
        return table
    return table if is_here else os.path.relpath(path, folder)


def _add_shared(drafted: Draft, wanted: Wanted) -> None:
    """Add the files that all specs of a folder share, unless they are there."""
    schema, ignore = wanted.folder / SCHEMA, wanted.folder / _IGNORE
    lines, text = ignored(wanted.output), SCHEMA_PATH.read_text(encoding="utf-8")
    if not (wanted.folder / AUTOMATIONS).exists():
        drafted.files[AUTOMATIONS] = automations_text()
    with storage_errors("reading what is there"):
        if not schema.exists():
            drafted.files[SCHEMA] = text
        elif schema.read_text(encoding="utf-8", errors="replace") != text:
            drafted.notes.append(
                f"{SCHEMA} is of another version; `batchata schema > {SCHEMA}` writes it anew."
            )
        if not ignore.exists():
            drafted.files[_IGNORE] = "\n".join(lines) + "\n"
            return
        known = {*map(str.strip, ignore.read_text("utf-8", errors="replace").splitlines())}
    drafted.ignored = [line for line in lines if line not in known]
    if drafted.ignored:
        drafted.notes.append(f".gitignore was there; added to it: {'  '.join(drafted.ignored)}")
