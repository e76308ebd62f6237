"""EnrichmentSpec: the description of one enrichment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict, not_json
from batchata_tasks.providers import check_name, provider_name
from batchata_tasks.schema.quotes import MinGrade  # noqa: TC001 - pydantic reads it
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.sources.csv_format import CsvFormat  # noqa: TC001 - pydantic reads it
from batchata_tasks.sources.document_table import PATH as DOCUMENT_PATH
from batchata_tasks.sources.forms import DocumentsSource, TableSource
from batchata_tasks.sources.source import Source  # noqa: TC001 - as above
from batchata_tasks.spec.json_text import parse_json
from batchata_tasks.spec.parts import (
    ABOUT_BLOCK,
    DEFAULT_PILOT,
    MAX_MISSING_SHARE,
    BlockName,
    Count,
    Missing,
    Number,
    Turn,
)
from batchata_tasks.spec.references import load_model, read_text
from batchata_tasks.spec.run import TEXTS, RunSpec, as_list
from batchata_tasks.types.destination import Destination

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from batchata_tasks.spec.parts import Pilot

Template = Annotated[str, Field(min_length=1)]
ColumnType = Literal["str", "int", "float", "bool", "date", "datetime", "decimal"]

# the keys as the README has them, which is how editors and Prefect's form show them
ORDER = (
    *("spec_version", "name", "source", "where", "limit", "types", "csv", "on_null", "key"),
    *(
        "model",
        "provider",
        "endpoint",
        "credentials",
        "system",
        "prompt",
        "prompt_file",
        "messages",
    ),
    *("file", "document_root", "on_bad_document"),
    *("response_model", "response_schema", "enable_citations", "min_grade"),
    *("max_tokens", "params", "cache"),
    *(
        "output",
        "columns",
        "on_missing",
        "max_missing_share",
        "items_per_batch",
        "max_parallel_batches",
    ),
    *("cost_limit_usd", "budget", "pilot", "time_limit"),
    *("rerun_on", "max_attempts", "fail_if", "raw_files", "retention", "delete_results"),
)


class EnrichmentSpec(RunSpec):
    """One enrichment: which rows, which question, which model, where the answers go."""

    spec_version: Literal[1] = Field(1, description="Version of this format.")
    source: TableSource = Field(
        description=(
            "CSV, JSONL or Parquet file (also compressed), workbook, pattern of such files, or "
            "folder of Parquet files, as a path or fsspec URL; or a query: {sql: SELECT …} over "
            "files, {url_env: NAME, query: SELECT …} of a database; or {file: …, sheet: NAME}; or "
            "{documents: PATTERN}, a row for each file."
        ),
    )
    where: str | None = Field(
        None, description="Jinja2 expression over the row; rows for which it is false are left out."
    )
    types: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="Types of columns of CSV files and workbooks; of CSV others are strings.",
    )
    csv: CsvFormat | None = Field(
        None, description="How a CSV file is written: delimiter, quote, encoding, header."
    )
    model: str = Field(
        min_length=1,
        description="The provider's model id.",
        examples=["claude-haiku-5-5", "gpt-6-luna"],
    )
    provider: str | None = Field(None, description="Default: follows from the model.")
    endpoint: Literal["chat", "responses"] = Field(
        "chat", description="The provider's endpoint; `responses` is OpenAI's."
    )
    credentials: BlockName = Field(None, description=ABOUT_BLOCK)
    system: str | None = Field(None, description="System prompt; a template.")
    prompt: str | None = Field(None, description="User prompt; a template.")
    prompt_file: str | None = Field(
        None, description="File that holds the prompt, instead of `prompt`."
    )
    messages: list[Turn] | None = Field(
        None, description="The turns to send, instead of `system` and `prompt`."
    )
    file: Annotated[list[Template] | None, BeforeValidator(as_list), WithJsonSchema(TEXTS)] = Field(
        None,
        min_length=1,
        description=(
            "Document that goes with each row's prompt: a template of its path, or several; a row "
            "for which it renders to nothing has none."
        ),
    )
    document_root: str | None = Field(
        None,
        min_length=1,
        description=(
            "Folder, or https URL, in which documents have to lie; default: the folder that you "
            "run in."
        ),
    )
    on_bad_document: Literal["error", "skip"] = Field(
        "error",
        description=(
            "What a document that cannot be sent does: it stops the run before anything is sent, "
            "or its row alone is not sent, and lands with the reason."
        ),
    )
    response_model: str | None = Field(
        None, description="file.py:Class or module:Class of a Pydantic model."
    )
    response_schema: dict[str, Any] | str | None = Field(
        None, description="JSON Schema, inline or a .json file."
    )
    enable_citations: bool = Field(
        default=False,
        description="Ask the model which passages of the documents its answer rests on.",
    )
    min_grade: MinGrade | None = Field(
        None,
        description=(
            "Grade of evidence that each value of an answer needs: without it, its row is invalid."
        ),
    )
    max_tokens: Count = Field(
        1024, ge=1, description="Cap on the tokens of one answer; always sent."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Further parameters, passed on to the provider."
    )
    on_missing: Literal["keep", "mark", "delete"] = Field(
        "keep",
        description=(
            "What happens to rows whose keys left the source: they stay, are marked in the column "
            "`_missing_since`, or are deleted."
        ),
    )
    max_missing_share: Number = Field(
        MAX_MISSING_SHARE,
        ge=0,
        le=1,
        description=(
            "Largest share of the dataset's rows, 0 to 1, that one run marks or deletes; if more "
            "are missing, it changes and sends nothing."
        ),
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """Return the JSON Schema, its keys in the README's order and with all defaults."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        keys: dict[str, Any] = schema["properties"]
        for name, field in cls.model_fields.items():
            if field.default_factory is not None:
                default = field.get_default(call_default_factory=True, validated_data={})
                keys[name]["default"] = to_jsonable_python(default)
        schema["properties"] = {name: keys[name] for name in dict.fromkeys((*ORDER, *keys))}
        # a table of documents has a key of its own
        schema["required"].remove("key")
        of_documents = {"properties": {"source": {"type": "object", "required": ["documents"]}}}
        schema |= {"if": of_documents, "else": {"required": ["key"]}}
        return schema

    _frame: Source | None = PrivateAttr(None)
    _model: type[BaseModel] | None = PrivateAttr(None)

    def with_frame(self, frame: Source) -> Self:
        """Let this table in memory be the source, which is a FrameSource."""
        self._frame = frame
        return self

    def with_model(self, model: type[BaseModel]) -> Self:
        """Let this class check the answers in this process; `response_schema` is its schema."""
        self._model = model
        return self

    @property
    def frame(self) -> Source | None:
        """The table in memory that is the source, if it is one."""
        return self._frame

    @model_validator(mode="before")
    @classmethod
    def _key_of_documents(cls, data: Any) -> Any:
        """Let `key` be the path of a table of documents, unless it is given."""
        if not isinstance(data, dict):
            return data
        keys = cast("dict[str, Any]", data)
        source = keys.get("source")
        if isinstance(source, DocumentsSource) or "documents" in as_dict(source):
            return {"key": DOCUMENT_PATH, **keys}
        return keys

    @field_validator("provider")
    @classmethod
    def _a_provider(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_name(value)
            except SpecError as error:
                raise ValueError(str(error).removeprefix("provider: ")) from None
        return value

    @field_validator("params", "response_schema")
    @classmethod
    def _plain_json(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
        if (odd := not_json(value)) is not None:
            message = f"{odd} is no JSON; write names with texts, numbers, lists."
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        prompts = [
            name
            for name in ("prompt", "prompt_file", "messages")
            if getattr(self, name) is not None
        ]
        if len(prompts) != 1:
            given = f"found {' and '.join(prompts)}" if prompts else "found none"
            message = f"give exactly one of `prompt`, `prompt_file` and `messages` ({given})."
            raise ValueError(message)
        if self.messages is not None and self.system is not None:
            message = (
                "`system` goes with `prompt`; with `messages`, write it as a turn of role system."
            )
            raise ValueError(message)
        if self.messages is not None and (not self.messages or self.messages[-1].role != "user"):
            message = "`messages` must end with a turn of role user."
            raise ValueError(message)
        if self.cache and not (
            self.system or any(turn.role == "system" for turn in self.messages or ())
        ):
            message = (
                "`cache` marks the system prompt, and there is none; "
                "write what all rows share as `system`, or remove `cache`."
            )
            raise ValueError(message)
        if self.response_model is not None and self.response_schema is not None:
            message = "give `response_model` or `response_schema`, not both."
            raise ValueError(message)
        for name in ("key", "columns"):
            values: list[str] = getattr(self, name) or []
            if doubled := sorted({value for value in values if values.count(value) > 1}):
                message = f"`{name}` names {doubled[0]!r} twice."
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _documents_alone(self) -> Self:
        if self.file is None:
            for name in ("document_root", "enable_citations"):
                if getattr(self, name):
                    message = f"`{name}` is about documents; write `file` as well, or remove it."
                    raise ValueError(message)
        if self.min_grade is not None:
            has_fields = self.response_model is not None or self.response_schema is not None
            lacks = None if has_fields else "`response_model` or `response_schema`"
            lacks = lacks if self.enable_citations else "`enable_citations: true`"
            if lacks is not None:
                message = (
                    f"`min_grade` is about the evidence of fields; write {lacks} as well, or "
                    "remove it."
                )
                raise ValueError(message)
        return self

    def destinations(self) -> list[Destination]:
        """See RunSpec."""
        return [Destination(provider_name(self.model, self.provider), self.model, self.endpoint)]

    @property
    def block(self) -> str | None:
        """See RunSpec."""
        return self.credentials

    @property
    def default_pilot(self) -> Pilot | None:
        """See RunSpec: a table may have more rows than somebody thinks."""
        return None if self.limited else DEFAULT_PILOT

    @property
    def missing(self) -> Missing | None:
        """See RunSpec."""
        if self.on_missing == "keep":
            return None
        return Missing(self.on_missing == "delete", self.max_missing_share)

    @property
    def origin(self) -> str:
        """See RunSpec."""
        return str(self.source)

    def turns(self) -> list[Turn]:
        """Return the turns to send, templates unrendered.

        Raises:
            SpecError: `prompt_file` cannot be read.
        """
        if self.messages is not None:
            return self.messages
        prompt = self.prompt
        if self.prompt_file is not None:
            prompt = read_text("prompt_file", Path(self.prompt_file))
        turns = [Turn(role="user", content=prompt or "")]
        return [Turn(role="system", content=self.system), *turns] if self.system else turns

    def schema_of_answers(
        self, roots: Iterable[Path], *, anew: bool = False
    ) -> ResponseSchema | None:
        """Load the response model; None means that the answers are plain text.

        `anew`: with all of its code, whatever of that this process has imported (`load_model`).

        Raises:
            SpecError: it cannot be loaded, is outside of `roots`, or needs what batches lack.
        """
        quoted = self.min_grade or self.enable_citations
        if self._model is not None:
            return ResponseSchema.from_model(self._model, "response_model", quoted=quoted)
        if self.response_model is not None:
            model = load_model(self.response_model, roots, anew=anew)
            return ResponseSchema.from_model(model, "response_model", quoted=quoted)
        if isinstance(self.response_schema, str):
            text = read_text("response_schema", Path(self.response_schema))
            try:
                schema = parse_json(text)
            except ValueError as error:
                message = f"response_schema: {self.response_schema} is not valid JSON: {error}"
                raise SpecError(message) from error
            return ResponseSchema.from_json_schema(schema, "response_schema", quoted=quoted)
        if self.response_schema is not None:
            schema = self.response_schema
            return ResponseSchema.from_json_schema(schema, "response_schema", quoted=quoted)
        return None
