"""The user's own prices: batch rates that genai-prices does not know, and negotiated ones.

They stand in the TOML file that `BATCHATA_PRICES` names, or in `prices.toml` of the working folder.
Each is dated and names its source, since runs are judged by it long after it was looked up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.toml_file import read_toml
from batchata_tasks.common.validation import describe_keys
from batchata_tasks.providers.registry import known_providers

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT = "prices.toml"
_FINEST = Decimal("0.000001")  # dollars per million tokens: a picodollar per token
_MOST = 1_000_000
_LONGEST = 200
_REMEDIES = {
    "input": "add its batch rate in US dollars per million tokens.",
    "output": "add its batch rate in US dollars per million tokens.",
    "as_of": "add the day on which the rates were looked up, such as 2026-11-01.",
    "source": "add where the rates are from, such as the address of the price page.",
}


def _amount(value: object) -> Decimal:
    amount = None
    # an amount in quotes is as good as a number; true is an int to Python
    if isinstance(value, int | str | Decimal) and not isinstance(value, bool):
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount <= _MOST:
        message = f"{value!r:.50} is not an amount; write US dollars, such as 1.25"
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
        message = f"{value!s:.50} is not a day; write it like 2026-11-01"
        raise ValueError(message) from None


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    message = f"{value!r:.50} is not true or false; write `free = true` if the model costs nothing"
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
    # says that rates of 0 are meant, so that no limit binds
    free: Annotated[bool, BeforeValidator(_flag)] = False
    as_of: Annotated[date, BeforeValidator(_day)]
    source: Annotated[str, BeforeValidator(_text)]

    @model_validator(mode="after")
    def _both_list_prices(self) -> Self:
        if (self.list_input is None) != (self.list_output is None):
            message = "`list_input` and `list_output` belong together; add the other one"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _free_if_meant(self) -> Self:
        for name, rate in (("input", self.input), ("output", self.output)):
            if not rate and not self.free:
                message = (
                    f"`{name}` is 0, so that no limit would bind; write its rate, "
                    "or add `free = true` if the model costs nothing"
                )
                raise ValueError(message)
            if rate and self.free:
                message = (
                    f"`{name}` is {rate}, and `free = true` says that the model costs nothing; "
                    "write 0, or remove `free`"
                )
                raise ValueError(message)
        return self


@dataclass(frozen=True, slots=True)
class CustomPrices:
    """The user's own prices: those of one price file, or none."""

    file: str = _DEFAULT  # its name, without the folder
    by_model: Mapping[tuple[str, str], CustomPrice] = field(
        default_factory=dict[tuple[str, str], CustomPrice]
    )

    def of(self, provider: str, model: str) -> CustomPrice | None:
        """Return the price of a model, or None if the file does not have it."""
        return self.by_model.get((provider, model))

    def source_of(self, price: CustomPrice) -> str:
        """Return where rates are from, as receipts and the ledger name it."""
        return f"{self.file} (as of {price.as_of.isoformat()}, source: {price.source})"


def load_prices(file: str | None) -> CustomPrices:
    """Read the user's prices from a file, or else from `prices.toml` of the working folder, if any.

    Load them once for a run, so that all its batches have the same prices.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong.
    """
    found = read_toml(file, _DEFAULT, "BATCHATA_PRICES", "prices")
    if found is None:
        return CustomPrices()
    path, tables = found
    return CustomPrices(path.name, _parsed(str(path), tables))


def _parsed(path: str, tables: dict[str, Any]) -> dict[tuple[str, str], CustomPrice]:
    prices: dict[tuple[str, str], CustomPrice] = {}
    for provider, models in tables.items():
        if provider not in known_providers() or not isinstance(models, dict):
            headings = " and ".join(f'[{name}."MODEL"]' for name in known_providers())
            message = (
                f"{path}: `{provider}` is not a table of a provider's models; "
                f"the tables are {headings}."
            )
            raise SpecError(message)
        for model, entry in cast("dict[str, Any]", models).items():
            prices[provider, model] = _price(path, provider, model, entry)
    return prices


def _price(path: str, provider: str, model: str, entry: object) -> CustomPrice:
    label = f"{path}: {provider}, model {model!r}"
    if not isinstance(entry, dict):
        message = f'{label}: this is not a table of rates; write them under [{provider}."MODEL"].'
        raise SpecError(message)
    try:
        return CustomPrice.model_validate(entry)
    except ValidationError as error:
        sentence = describe_keys(error, if_unknown=_known_keys, if_missing=_REMEDIES.__getitem__)
        message = f"{label}: {sentence}"
        raise SpecError(message) from None


def _known_keys(_key: str, value: object) -> str:
    if isinstance(value, dict):
        return 'put a model\'s name with dots in quotes, as in [openai."gpt-6.2-sol"].'
    return f"the keys are {', '.join(CustomPrice.model_fields)}."
