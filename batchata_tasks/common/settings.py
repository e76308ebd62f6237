"""Settings from the environment (prefix `BATCHATA_`), and the default place of the ledger."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import from_home
from batchata_tasks.common.validation import describe_error, first_error

TaskRunner = Literal["thread", "process", "dask", "ray"]
"""Where the work of a flow run that takes the most time of processors is done."""

_DAY = 86_400
_BOUNDS = {"gt": "more than", "ge": "at least", "le": "at most"}


def default_ledger_url() -> str:
    """Return the URL of the SQLite ledger in the user's data directory."""
    return f"sqlite:///{Path(platformdirs.user_data_dir('batchata')) / 'ledger.db'}"


class Settings(BaseSettings):
    """Everything that an operator may set but credentials: the SDKs' own variables hold those."""

    model_config = SettingsConfigDict(env_prefix="BATCHATA_", frozen=True)

    def __init__(self, **values: object) -> None:
        """Read the environment; raises SpecError naming an invalid variable."""
        try:
            super().__init__(**values)  # pyright: ignore[reportArgumentType]
        except ValidationError as error:
            name, first = first_error(error, quote=False)
            text = _range(name) or describe_error(first)
            message = f"BATCHATA_{name.upper()}: {text}; fix or unset the variable."
            raise SpecError(message) from None

    ledger_url: str = Field(
        default_factory=default_ledger_url,
        repr=False,
        description="SQLAlchemy URL of the ledger; it may hold a password, so it is never printed.",
    )
    poll_interval: float | None = Field(
        default=None,
        gt=0,
        le=_DAY,
        description="Seconds between two status requests for a batch; "
        "default: the provider's, with back-off.",
    )
    unclear_grace: float = Field(
        default=900,
        ge=0,
        le=7 * _DAY,
        description="Seconds after a create without a clear answer, until its absence from the "
        "provider's list proves that it failed.",
    )
    cancel_grace: float = Field(
        default=3600,
        ge=0,
        le=7 * _DAY,
        description="Seconds for which a batch is waited for after it was asked to cancel, or "
        "after the time at which it expires; then its rows are held, and the run ends without it.",
    )
    patience: float = Field(
        default=60,
        ge=0,
        le=_DAY,
        description="Seconds for which calls are retried after rate limits, overload and lost "
        "connections, before a run stops.",
    )
    lease_seconds: float = Field(
        default=60,
        gt=1,
        le=_DAY,
        description="Seconds after which a run that no longer responds loses its dataset.",
    )
    code_roots: str | None = Field(
        default=None,
        description="Folders (separated like PATH) from which response models may be loaded; "
        "default: the working folder.",
    )
    prices: str | None = Field(
        default=None,
        description="File with the user's own batch rates; default: prices.toml of the working "
        "folder, if it exists.",
    )
    queues: str | None = Field(
        default=None,
        description="File with the most that queues of providers hold; default: queues.toml of the "
        "working folder, if it exists.",
    )
    task_runner: TaskRunner = Field(
        default="thread",
        description="Where flow runs write request files and read results: in threads of their "
        "own process, in other processes of the machine, or on a Dask or Ray cluster.",
    )
    openai_cap: Literal["max_completion_tokens", "max_tokens"] = Field(
        default="max_completion_tokens",
        description="The name of the cap on answers in OpenAI's chat requests; max_tokens is for "
        "other servers of that API which know no other name.",
    )

    @field_validator("code_roots")
    @classmethod
    def _are_paths(cls, value: str | None) -> str | None:
        _folders(value or "")
        return value

    def roots(self) -> list[Path]:
        """Return the folders from which code may be loaded, with links resolved."""
        return _folders(self.code_roots) if self.code_roots else [Path.cwd().resolve()]


def _range(name: str) -> str:
    """Return what a setting in seconds must be; nothing if it is none."""
    field = Settings.model_fields.get(name)
    bounds = [asdict(one).items() for one in (field.metadata if field is not None else ())]
    texts = [f"{_BOUNDS[kind]} {value:,}" for items in bounds for kind, value in items]
    return f"must be a number of seconds, {' and '.join(texts)}" if texts else ""


def _folders(text: str) -> list[Path]:
    """Return the folders of a list like PATH, with links resolved.

    Raises:
        SpecError: one is in the home folder of nobody.
        ValueError: one leads nowhere.
    """
    folders = list[Path]()
    for one in filter(None, text.split(os.pathsep)):
        folder = from_home(one, "BATCHATA_CODE_ROOTS")
        try:
            folders.append(folder.resolve())
        except (OSError, RuntimeError) as error:  # links that lead in a circle
            message = f"{one} leads to no folder: {str(error).removesuffix('.')}"
            raise ValueError(message) from error
    return folders
