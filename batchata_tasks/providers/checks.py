"""Refuses, before anything is sent, what a provider would refuse hours later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.request import Message


def roles_alone(check_turns: Callable[..., None]) -> Any:
    """Mark a `check_turns` that looks at the roles of turns alone, never at their texts.

    Then jobs of the same roles need not be checked one by one. An adapter that overrides it is not
    marked, unless it marks its own.
    """
    check_turns.roles_alone = True  # pyright: ignore[reportFunctionMemberAccess]
    return check_turns


class Checks:
    """Rules of a provider that need no call; adapters state them, or make them stricter."""

    # up to 32 characters: it stands in ledgers, in datasets and in names of files
    name: ClassVar[str]
    endpoint_name: ClassVar[str] = "chat"  # the name of the adapter's endpoint in specs and Jobs
    reserved_params: ClassVar[frozenset[str]]  # the pipeline sets them: a spec may not
    # refused: they change the price of a token, and no usage says so
    repriced_params: ClassVar[frozenset[str]]
    # allowed under a cost limit: they cannot change prices or numbers of tokens
    priced_params: ClassVar[frozenset[str]]
    document_bytes: ClassVar[int] = 0  # the largest file in a request; 0: requests take none
    document_pages: ClassVar[int] = 10**9  # the most pages of a PDF
    blank_turns: ClassVar[bool] = True  # whether turns may be blank; the last one never may
    cites: ClassVar[bool] = False  # whether an answer can cite passages of a document

    @classmethod
    def check_model(cls, model: str, max_tokens: int) -> None:
        """Refuse a model that the endpoint does not serve, and an invalid cap on answers.

        Raises:
            SpecError: naming the field.
        """
        del model, max_tokens

    @classmethod
    def check_cap(cls, max_tokens: int, params: Mapping[str, Any]) -> None:
        """Refuse parameters that contradict the cap on answers.

        Raises:
            SpecError: naming the parameter.
        """
        del max_tokens, params

    @classmethod
    @roles_alone
    def check_turns(cls, turns: Sequence[Message]) -> None:
        """Refuse turns that the provider would refuse, or would take in another order."""
        del turns

    @classmethod
    def document_tokens(cls, model: str) -> tuple[int, int]:
        """Return the most tokens of a PDF's page and of a picture, by rule (docs/money.md)."""
        del model
        return 10_000, 12_000

    @classmethod
    def check_schema(cls, schema: ResponseSchema) -> None:
        """Refuse a response model that the provider would refuse for each line of a batch.

        Raises:
            SpecError: naming the first field that it does not take.
        """
        del schema

    @classmethod
    def check_document(cls, document: Document, file: Path | str, *, structured: bool) -> None:
        """Refuse a document (from `file`) that a request cannot carry, or that cannot be cited.

        `structured` says whether the request has a response model.

        Raises:
            SpecError: naming the field.
        """
        cls.check_attaching(cited=document.cited, structured=structured)
        size, pages = len(document.data), document.pages
        problem = None
        if size > cls.document_bytes:
            most = f"{cls.document_bytes:,}"
            problem = f"file: {file} has {size:,} bytes, and a request can carry {most}; split it."
        elif pages > cls.document_pages:
            most = f"{cls.document_pages:,}"
            problem = f"file: {file} has {pages:,} pages, and a request can carry {most}; split it."
        elif document.cited and document.kind == "image":
            problem = (
                f"enable_citations: {file} is a picture, of which nothing can be cited; remove it."
            )
        if problem is not None:
            raise SpecError(problem)

    @classmethod
    def check_documents(
        cls, documents: Sequence[tuple[Document, str]], *, structured: bool
    ) -> None:
        """Refuse documents, each with the name of its file, that no request can carry together.

        Raises:
            SpecError: naming the field.
        """
        for document, file in documents:
            cls.check_document(document, file, structured=structured)
        size = sum(len(document.data) for document, _ in documents)
        pages = sum(document.pages for document, _ in documents)
        if size > cls.document_bytes or pages > cls.document_pages:
            most = f"{cls.document_bytes:,} bytes and {cls.document_pages:,} pages"
            files = ", ".join(file for _, file in documents)
            message = (
                f"file: {files} have {size:,} bytes and {pages:,} pages together, and a request "
                f"can carry {most}; give it fewer of them."
            )
            raise SpecError(message)

    @classmethod
    def check_attaching(cls, *, cited: bool, structured: bool) -> None:
        """Refuse what no document changes: that requests have documents, or cite them (`cited`).

        Raises:
            SpecError: naming the field.
        """
        problem = None
        if not cls.document_bytes:
            problem = f"file: the {cls.name} API takes no documents; put the text into the prompt."
        elif cited and not structured and not cls.cites:
            problem = (
                f"enable_citations: the {cls.name} API cites no documents; ask for fields, by a "
                "response model, whose passages the answer can quote, or use a Claude model."
            )
        if problem is not None:
            raise SpecError(problem)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        """Refuse parameters that the spec may not set or that `model` refuses.

        If a cost limit is to hold (`limited`), refuse those without a bounded price as well.

        Raises:
            SpecError: naming the parameter.
        """
        del model  # adapters know which models refuse what
        for name in params:
            problem = None
            if name in cls.reserved_params:
                problem = (
                    "this is set by the spec's own keys "
                    "(model, max_tokens, prompt, response_model …); remove it."
                )
            elif name in cls.repriced_params:
                problem = (
                    "it changes what is billed in a way that no usage reports, "
                    "so costs would be wrong; remove it."
                )
            elif limited and name not in cls.priced_params:
                allowed = ", ".join(sorted(cls.priced_params))
                problem = (
                    "its effect on the price has no bound, "
                    f"so a cost limit forbids it (allowed: {allowed})."
                )
            if problem is not None:
                message = f"params.{name}: {problem}"
                raise SpecError(message)
