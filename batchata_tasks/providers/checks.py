"""What a provider would refuse, hours later, refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.request import Message


class Checks:
    """Rules of a provider that need no call; adapters state them, or make them stricter."""

    name: ClassVar[
        str
    ]  # up to 32 characters: it stands in ledgers, in datasets and in names of files
    endpoint_name: ClassVar[str] = "chat"  # as specs and Jobs call what the adapter sends to
    reserved_params: ClassVar[frozenset[str]]  # set by the pipeline: a spec may not
    repriced_params: ClassVar[
        frozenset[str]
    ]  # change what a token costs, and no usage says so: refused
    priced_params: ClassVar[frozenset[str]]  # cannot change price or count: allowed under a limit
    document_bytes: ClassVar[int] = (
        0  # the largest file that a request can carry; 0: requests carry none
    )
    document_pages: ClassVar[int] = 10**9  # of a PDF
    cites: ClassVar[bool] = False  # whether an answer can say what of a document it rests on

    @classmethod
    def check_model(cls, model: str, max_tokens: int) -> None:
        """Refuse a model that the endpoint does not serve, and a cap on answers that it does not take.

        Raises:
            SpecError: naming the field.
        """
        del model, max_tokens

    @classmethod
    def check_turns(cls, turns: Sequence[Message]) -> None:
        """Refuse turns that the provider would refuse, or read otherwise than they stand."""
        del turns

    @classmethod
    def document_tokens(cls, model: str) -> tuple[int, int]:
        """Return the most tokens that a page of a PDF and a picture count as, by rule (docs/money.md)."""
        del model
        return 10_000, 12_000

    @classmethod
    def check_schema(cls, schema: ResponseSchema) -> None:
        """Refuse a response model that the provider would refuse, hours later, for each line of a batch.

        Raises:
            SpecError: naming the first field that is too much.
        """
        del schema

    @classmethod
    def check_document(cls, document: Document, file: Path, *, structured: bool) -> None:
        """Refuse a document (from `file`) that a request cannot carry, and citations that no answer would have.

        `structured` says whether the answer is asked for in a response model.

        Raises:
            SpecError: naming the field.
        """
        wrong = None
        if not cls.document_bytes:
            wrong = f"file: the {cls.name} API takes no documents; put the text into the prompt."
        elif len(document.data) > cls.document_bytes:
            wrong = f"file: {file} has {len(document.data):,} bytes, and a request can carry {cls.document_bytes:,}; split it."
        elif document.pages > cls.document_pages:
            wrong = f"file: {file} has {document.pages:,} pages, and a request can carry {cls.document_pages:,}; split it."
        elif document.cited and not cls.cites:
            wrong = f"enable_citations: the {cls.name} API cites no documents; leave it out, or use a model of Anthropic."
        elif document.cited and document.kind == "image":
            wrong = f"enable_citations: {file} is a picture, of which nothing can be cited; leave it out."
        elif document.cited and structured:
            wrong = "enable_citations: an answer that cites cannot have a response_model; leave one of them out."
        if wrong is not None:
            raise SpecError(wrong)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        """Refuse parameters that the spec may not set, that `model` refuses, or of unbounded price.

        Raises:
            SpecError: naming the parameter.
        """
        del model  # adapters know which models refuse what
        for name in params:
            if name in cls.reserved_params:
                message = f"params.{name}: this is set by the spec's own keys (model, max_tokens, prompt, response_model …); remove it."
                raise SpecError(message)
            if name in cls.repriced_params:
                message = f"params.{name}: it changes what is billed in a way that no usage tells, so costs would be wrong; remove it."
                raise SpecError(message)
            if limited and name not in cls.priced_params:
                allowed = ", ".join(sorted(cls.priced_params))
                message = f"params.{name}: its effect on the price has no bound, so a cost limit forbids it (allowed: {allowed})."
                raise SpecError(message)
