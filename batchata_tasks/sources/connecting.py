"""Connecting to a database whose URL is in the environment: nothing of it is ever told.

The variable's name is known to the spec alone, so it is read here, and not with the settings.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.libpq import CONNECT_ARGS
from batchata_tasks.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import URL, Connection

FETCHED_ROWS = 2048
_EXAMPLE = "postgresql+psycopg://user:password@host/name"
_DRIVERS = {"postgresql": "batchata-flows[postgres]"}
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)
_MASK = "…"


def url_in(variable: str) -> URL:
    """Return the URL that a variable has.

    Raises:
        SourceError: it is not set, or not a URL.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - as above
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    text = os.environ.get(variable, "")
    if not text:
        message = (
            f"source.url_env: the variable {variable} is not set; set it to the URL of the "
            f"database, such as {_EXAMPLE}."
        )
        raise SourceError(message)
    # raised outside of the handler, so that no cause of it quotes the URL
    url = None
    with suppress(ArgumentError, ValueError):
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text))
    if url is not None and "@" not in (url.host or ""):  # a password's own, which drivers quote
        return url
    message = (
        f"source.url_env: what {variable} has is not the URL of a database; write it "
        f"as {_EXAMPLE}, with %40 for an @ of the password."
    )
    raise SourceError(message)


@contextmanager
def opened(url: URL, variable: str) -> Generator[Connection, None, None]:
    """Connect for one statement that only reads; nothing that it did is ever committed.

    Raises:
        SourceError: there is no driver, or no such file.
        SQLAlchemyError: the database cannot be reached.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 - as above
    from sqlalchemy.exc import NoSuchModuleError  # noqa: PLC0415 - as above
    from sqlalchemy.pool import NullPool  # noqa: PLC0415 - as above

    kind, arguments = url.get_backend_name(), dict[str, Any]()
    if kind == "postgresql":
        arguments = {name: value for name, value in CONNECT_ARGS.items() if name not in url.query}
    if kind == "sqlite" and not Path(str(url.database)).exists():
        message = f"source.url_env: there is no file of the database that {variable} names."
        raise SourceError(message)
    engine, lacking = None, ""
    try:
        engine = create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=arguments
        )
    except NoSuchModuleError:
        lacking = f"a dialect of SQLAlchemy for {kind}; install the package that has it"
    except ImportError as error:
        package = _DRIVERS.get(kind, error.name or "its driver")
        lacking = f"the driver for {kind}; run `pip install '{package}'`"
    if engine is not None and engine.dialect.is_async:
        engine, lacking = None, f"a driver that is not asynchronous, such as in {_EXAMPLE}"
    if engine is None:
        message = f"source.url_env: the URL in {variable} needs {lacking}."
        raise SourceError(message)
    options: dict[str, Any] = {"stream_results": True, "max_row_buffer": FETCHED_ROWS}
    if kind == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect() as made:
        connection = made.execution_options(**options, no_parameters=True)
        if kind == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
        yield connection
        connection.rollback()


def masked(text: str, url: URL) -> str:
    """Return a driver's text in one line, without passwords and other secrets of the URL."""
    secrets = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if _SECRET.search(name):
            secrets += [value] if isinstance(value, str) else list(value)
    forms = {url.render_as_string(hide_password=False)}
    for secret in filter(None, secrets):
        forms |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _MASK)
    return printable(" ".join(text.split()))[:500].rstrip(".")
