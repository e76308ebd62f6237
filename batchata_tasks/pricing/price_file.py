"""The user's own prices: batch rates of models that genai-prices does not know, and negotiated ones.

They stand in the TOML file that `BATCHATA_PRICES` names, or in `prices.toml` of the folder one runs in.
Each is dated and says where it is from, since runs are judged by it long after it was looked up.
"""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.providers.registry import known_providers

_DEFAULT = "prices.toml"
_FINEST = Decimal("0.000001")  # dollars per million tokens: a picodollar per token
_MOST = 1_000_000
_LONGEST = 200
_REMEDIES = {
    "input": "add its batch rate in US dollars per million tokens",
    "output": "add its batch rate in US dollars per million tokens",
    "as_of": "add the day on which the rates were looked up, such as 2026-11-01",
    "source": "add where the rates are from, such as the address of the price page",
}


def _amount(value: object) -> Decimal:
    try:
        # an amount in quotes is as good as a number; true is an int to Python
        amount = (
            Decimal(value)
            if isinstance(value, int | str | Decimal) and not isinstance(value, bool)
            else None
        )
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount <= _MOST:
        message = f"{value!r:.50} is no amount; write US dollars, such as 1.25"
        raise ValueError(message)
    if amount != amount.quantize(_FINEST):
        message = f"{value!s:.50} has more than six decimal places; round it up to six"
        raise ValueError(message)
    return amount


def _day(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(cast("str", value))
    except (TypeError, ValueError):
        message = f"{value!s:.50} is no day; write it like 2026-11-01"
        raise ValueError(message) from None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    message = f"{value!r:.50} is neither true nor false; write `free = true` where the model costs nothing"
    raise ValueError(message)


def _text(value: object) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        message = f"{value!r:.50} says nothing; {_REMEDIES['source']}"
        raise ValueError(message)
    return text[:_LONGEST]


Amount = Annotated[Decimal, BeforeValidator(_amount)]


class CustomPrice(BaseModel):
    """Rates of one model in US dollars per million tokens, as the user wrote them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Amount
    output: Amount
    cache_read: Amount | None = None
    cache_write: Amount | None = None
    cache_write_1h: Amount | None = None
    searches_per_thousand: Amount | None = None
    list_input: Amount | None = None
    list_output: Amount | None = None
    free: Annotated[bool, BeforeValidator(_flag)] = (
        False  # rates of 0 are meant, so that no limit binds
    )
    as_of: Annotated[date, BeforeValidator(_day)]
    source: Annotated[str, BeforeValidator(_text)]
    _file: str = _DEFAULT

    @model_validator(mode="after")
    def _whole_list_price(self) -> Self:
        if (self.list_input is None) != (self.list_output is None):
            message = "`list_input` and `list_output` belong together; add the other one"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _free_if_meant(self) -> Self:
        for name, rate in (("input", self.input), ("output", self.output)):
            if not rate and not self.free:
                message = f"`{name}` is 0, so that no limit would bind; write its rate, or add `free = true` where the model costs nothing"
                raise ValueError(message)
            if rate and self.free:
                message = f"`{name}` is {rate}, and `free = true` says that the model costs nothing; write 0, or leave `free` out"
                raise ValueError(message)
        return self

    def described(self) -> str:
        """Return where the rates are from, as receipts and the ledger name it."""
        return f"{self._file} (as of {self.as_of.isoformat()}, source: {self.source})"

    def named(self, file: str) -> CustomPrice:
        """Return the price, knowing the name of its file."""
        self._file = file
        return self


def own_price(provider: str, model: str) -> CustomPrice | None:
    """Return what the user's price file says of a model; None where it says nothing, or there is none.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong.
    """
    named = Settings().prices
    path = Path(named or _DEFAULT).expanduser()
    if not named and not path.is_file():
        return None
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = f"BATCHATA_PRICES: there is no file {path}; mend or unset the variable."
        raise SpecError(message) from None
    except OSError as error:
        message = f"{path}: the prices cannot be read: {error.strerror}; mend that, or name another file in BATCHATA_PRICES."
        raise SpecError(message) from error
    return _parsed(str(path), content).get((provider, model))


@lru_cache(maxsize=8)
def _parsed(path: str, content: bytes) -> dict[tuple[str, str], CustomPrice]:
    try:
        # floats as they are written, never as binary ones
        data = tomllib.loads(content.decode(), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        message = f"{path}: not valid TOML: {error}; mend the file."
        raise SpecError(message) from error
    found: dict[tuple[str, str], CustomPrice] = {}
    for provider, models in data.items():
        if provider not in known_providers() or not isinstance(models, dict):
            tables = " and ".join(f'[{name}."MODEL"]' for name in known_providers())
            message = (
                f"{path}: `{provider}` is no table of a provider's models; the tables are {tables}."
            )
            raise SpecError(message)
        for model, entry in cast("dict[str, Any]", models).items():
            found[provider, model] = _price(path, provider, model, entry)
    return found


def _price(path: str, provider: str, model: str, entry: object) -> CustomPrice:
    where = f"{path}: {provider}, model {model!r}"
    if not isinstance(entry, dict):
        message = f'{where}: this is no table of rates; write them under [{provider}."MODEL"].'
        raise SpecError(message)
    try:
        return CustomPrice.model_validate(entry).named(Path(path).name)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next(
            (e for e in errors if e["type"] == "extra_forbidden"), errors[0]
        )  # a misspelt key is missing, too
        key = str(first["loc"][0]) if first["loc"] else ""
        message = f"{where}: {_sentence(key, first['type'], first['msg'], first['input'])}."
        raise SpecError(message) from None


def _sentence(key: str, kind: str, message: str, value: object) -> str:
    if kind == "extra_forbidden" and isinstance(value, dict):
        return f'unknown key `{key}`; a model\'s name with dots stands in quotes, as in [openai."gpt-6.2-sol"]'
    if kind == "extra_forbidden":
        return f"unknown key `{key}`; the keys are {', '.join(CustomPrice.model_fields)}"
    if kind == "missing":
        return f"the key `{key}` is missing; {_REMEDIES[key]}"
    text = message.removeprefix("Value error, ")
    return f"`{key}`: {text}" if key else text
