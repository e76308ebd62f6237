"""Blocks of credentials: API keys that a Prefect server keeps, and that specs name.

`prefect block register -m batchata_tasks.flows.credentials` adds their forms to Prefect's UI.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from httpx import HTTPError, HTTPStatusError
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import Field, SecretStr, ValidationError

from batchata_tasks.common.errors import CredentialsError
from batchata_tasks.common.text import printable
from batchata_tasks.common.validation import describe_error, first_error

if TYPE_CHECKING:
    from collections.abc import Mapping

_USER = re.compile(r"(?<=://)[^/?#\s]*@")  # a password, often


class AnthropicCredentials(Block):
    """The account at Anthropic, or at a server of the same API, that batches are sent to."""

    # names of our own: the type of another package that is called alike would be replaced
    _block_type_name: ClassVar[str | None] = "Batchata Anthropic Credentials"
    _block_type_slug: ClassVar[str | None] = "batchata-anthropic-credentials"
    _description: ClassVar[str | None] = (
        "An API key for Anthropic's Message Batches. Specs name the block by `credentials: NAME`."
    )
    _code_example: ClassVar[str | None] = """
        ```python
        from batchata_tasks.flows.credentials import AnthropicCredentials

        AnthropicCredentials(api_key="…").save("research")
        ```"""

    api_key: SecretStr = Field(title="API key", description="The key of the account that pays.")
    base_url: str | None = Field(
        None,
        title="Base URL",
        description="Address of the API, without /v1; default: https://api.anthropic.com.",
    )


class OpenAICredentials(Block):
    """The account at OpenAI, or at a server of the same API, that batches are sent to."""

    _block_type_name: ClassVar[str | None] = "Batchata OpenAI Credentials"
    _block_type_slug: ClassVar[str | None] = "batchata-openai-credentials"
    _description: ClassVar[str | None] = (
        "An API key for OpenAI's Batch API. Specs name the block by `credentials: NAME`."
    )
    _code_example: ClassVar[str | None] = """
        ```python
        from batchata_tasks.flows.credentials import OpenAICredentials

        OpenAICredentials(api_key="…", project="proj_…").save("research")
        ```"""

    api_key: SecretStr = Field(title="API key", description="The key of the account that pays.")
    base_url: str | None = Field(
        None,
        title="Base URL",
        description="Address of the API, with /v1; default: https://api.openai.com/v1.",
    )
    organization: str | None = Field(
        None, description="Id of the organization, if the key belongs to several."
    )
    project: str | None = Field(None, description="Id of the project, if the key is of no project.")


_TYPES: dict[str, type[Block]] = {"anthropic": AnthropicCredentials, "openai": OpenAICredentials}


def fields_of(provider: str, name: str) -> Mapping[str, str | None]:
    """Return what a provider's block holds at this moment, by the names of its fields.

    It can be called in flows and outside, with an event loop or without. If no server is
    configured, Prefect starts a temporary one.

    Raises:
        CredentialsError: there is no such block, it is incomplete, or no server answers.
    """
    kind = _TYPES[provider]
    what = f"credentials: the block {name!r} ({kind.get_block_type_name()})"
    try:
        with get_client(sync_client=True) as client:
            document = client.read_block_document_by_name(name, kind.get_block_type_slug())
    except ObjectNotFound:
        message = (
            f"{what} is not on {_server()}; save it there under this name, or name one that is: "
            "`prefect block ls` lists them."
        )
        raise CredentialsError(message) from None
    except HTTPStatusError as error:
        message = (
            f"{what} cannot be read: {_server()} answers with HTTP {error.response.status_code}; "
            "check PREFECT_API_KEY, or PREFECT_API_AUTH_STRING, and the server's log."
        )
        raise CredentialsError(message) from None
    except (HTTPError, RuntimeError) as error:  # a RuntimeError if a temporary server fails
        message = (
            f"{what} cannot be read: {_server()} does not answer ({type(error).__name__}); start "
            "it, or set PREFECT_API_URL to the address of the one that has the block."
        )
        raise CredentialsError(message) from None
    try:
        block = kind.model_validate(document.data)
    except ValidationError as error:
        field, first = first_error(error, quote=False)
        message = f"{what} is incomplete: `{field}`: {describe_error(first)}; edit it in Prefect."
        raise CredentialsError(message) from None  # the cause may quote a key
    return {
        field: value.get_secret_value() if isinstance(value, SecretStr) else value
        for field in kind.model_fields
        if (value := getattr(block, field)) is not None
    }


def _server() -> str:
    url = get_current_settings().api.url
    if url is None:
        return "Prefect's own database (PREFECT_API_URL names no server)"
    return f"the Prefect server at {printable(_USER.sub('', url))}"
