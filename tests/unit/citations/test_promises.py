"""What the mapping promises, one by one: candidates, grades, values, nested answers, truth."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, Field

from batchata_tasks import Citation, JobResult, map_citations
from tests.support.cited_truth import cite

Block = tuple[str, list[dict[str, Any]]]


def cited(text: str, page: int = 1) -> Block:
    """Return a block whose citation quotes it."""
    return text, [cite(page, text.strip())]


def uncited(text: str) -> Block:
    return text, []


def mapped(fields: Any, *blocks: Block) -> dict[str, list[Citation]]:
    """Map citations where each page bears out what is quoted from it."""
    pages: dict[int, list[str]] = {1: []}
    for _, citations in blocks:
        for citation in citations:
            pages.setdefault(citation["page_start"], []).append(citation["cited_text"] or "")
    source = ["\n".join(pages.get(page, [])) for page in range(1, max(pages) + 1)]
    return map_citations(fields, blocks, source)


def grade(fields: Any, *blocks: Block) -> str | None:
    """Return the grade of the only field, None if nothing supports it."""
    told = mapped(fields, *blocks)
    assert len(told) <= 1
    (citations,) = told.values() if told else ([],)
    grades = {citation["grade"] for citation in citations}
    return grades.pop() if grades else None


# Candidates


def test_a_value_counts_in_its_block_or_in_its_quote() -> None:
    """A citation supports a field whose value stands in the block or in the cited text."""
    block = ("The rent is $2,450.", [cite(1, "as agreed")])
    quote = ("This is agreed.", [cite(1, "Rent: 2,450")])
    assert list(map_citations({"rent": 2450}, [block])) == ["rent"]
    assert list(map_citations({"rent": 2450}, [quote])) == ["rent"]
    assert map_citations({"rent": 2450}, [("The rent is $2,450.", [])]) == {}


@pytest.mark.parametrize(
    "label",
    ["- **Site name**: ", "Site name: ", "Site name - ", "The site name is ", "| Site name | "],
)
def test_an_uncited_label_and_a_cited_value_are_read_as_one(label: str) -> None:
    """The label stands in the uncited block before the cited value."""
    assert grade({"site_name": "North Yard"}, uncited(label), cited("North Yard")) == "high"


@pytest.mark.parametrize("connector", [" and ", ", ", "; ", ", and ", " & ", " und "])
def test_a_second_value_has_the_label_of_the_first(connector: str) -> None:
    """Cited value, uncited connector, cited value: one label is for both."""
    blocks = [uncited("**Sites**: "), cited("North Yard"), uncited(connector), cited("East Quay")]
    told = mapped({"sites": ["North Yard", "East Quay"]}, *blocks)
    assert [told[f"sites[{i}]"][0]["grade"] for i in (0, 1)] == ["high", "high"]
    assert grade({"site": "East Quay"}, *blocks) == "high"


def test_a_sentence_between_is_no_connector() -> None:
    """Behind the end of a sentence or a line, a label is no longer that of a value."""
    for between in (". Nearby there is ", "\n", ", which lies near "):
        blocks = [uncited("Site name: "), cited("North Yard"), uncited(between), cited("East Quay")]
        assert grade({"site_name": "East Quay"}, *blocks) != "high"


def test_words_without_the_value_never_map() -> None:
    """The words of a field say nothing of it where its value is not."""
    assert mapped({"interest_rate": 4.25}, cited("The interest rate is told below.")) == {}


def test_several_fields_and_several_citations() -> None:
    """One citation serves several fields; one field has several, in the order of the answer."""
    blocks = [cited("Tenant: Mira Novak", 2), cited("\nTenant: Mira Novak, rent: 900", 1)]
    told = mapped({"rent": 900, "tenant": "Mira Novak"}, *blocks)
    assert [one["page_start"] for one in told["tenant"]] == [2, 1]
    assert [one["page_start"] for one in told["rent"]] == [1]
    assert list(told) == ["rent", "tenant"]


def test_of_the_citations_of_a_block_those_count_that_quote_the_value() -> None:
    """Where one of a block's citations has the value in its quote, the others are not evidence."""
    block = ("Rent: 900, due 2025-05-01", [cite(1, "due 2025-05-01"), cite(2, "Rent: 900")])
    told = map_citations({"rent": 900, "due": date(2025, 5, 1)}, [block])
    assert [one["page_start"] for one in told["rent"]] == [2]
    assert [one["page_start"] for one in told["due"]] == [1]


# Grades


@pytest.mark.parametrize(
    "text",
    [
        "**Total amount**: 480.00",
        "**Total amount:** $480.00",
        "- Total amount: 480",
        "Total amount - 480.00",
        "Total amount \u2013 480.00",
        "The total amount is 480.00.",
        "Total amounts were $480",
        "total_amount: 480.0",
        "Total amount (USD): 480.00",
        "Total amount: about USD 480.00",
        "Total amount:\n480.00",
        "| Total amount | 480.00 |",
        "Amount, total: 12, total amount: 480.00",
    ],
)
def test_a_label_before_the_value_is_high(text: str) -> None:
    """The field's name stands as a label before the value."""
    assert grade({"total_amount": 480.0}, cited(text)) == "high"


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ("One two 480", "medium", "2 of 3 words nearby"),
        ("480 of one", "medium", "1 of 3 words nearby"),
        ("It is 480 at one. Two. Three.", "medium", "1 of 3 words nearby"),
        ("It is 480. One two three.", "low", "value alone"),
        ("480", "low", "value alone"),
    ],
)
def test_words_nearby_are_medium_and_a_value_alone_is_low(
    text: str, expected: str, reason: str
) -> None:
    """With 30 % of the name's words nearby it is medium, with fewer low; the reason says so."""
    told = mapped({"one_two_three": 480}, cited(text))["one_two_three"]
    assert [(one["grade"], one["reason"]) for one in told] == [(expected, reason)]


def test_the_best_grade_wins() -> None:
    """Weaker candidates of a field are dropped, and several of the same grade are kept."""
    blocks = [cited("480 once", 1), cited("\nTotal: 480", 2), cited("\nThe total is 480", 3)]
    told = mapped({"total": 480}, *blocks)["total"]
    assert [(one["page_start"], one["grade"]) for one in told] == [(2, "high"), (3, "high")]
    assert told[0]["reason"] == "labelled 'Total'"


@pytest.mark.parametrize(
    ("name", "label", "fits"),
    [
        ("total", "Subtotal", False),
        ("buildings", "Building", True),
        ("story", "Stories", True),
        ("tax", "Taxes", True),
        ("assess", "Assessed", True),
        ("plan", "Planning", True),
        ("total", "Totl", True),
        ("total", "Toatl", True),
        ("total", "Tottl", True),
        ("total", "Tootal", True),
        ("total", "Ttl", False),
        ("rent", "Rant", False),
        ("line_1", "Line 2", False),
        ("date_of_birth", "Date birth", True),
        ("total_amount", "Subtotal amount", False),
        ("total_amount", "Net total amount", False),
        ("total_amount", "Total", False),
        ("invoice_no", "Invoice number", True),
        ("invoiceNo", "Invoice no.", True),
        ("id", "ID", True),
        ("vat", "VAT (8.25 %)", True),
        ("vat", "VAT 19%", True),
        ("subtotal", "Sub-total", True),
    ],
)
def test_labels_match_whole_words(name: str, label: str, fits: bool) -> None:
    """Plural, -ed, -ing and one typo in five letters; more or less said is no label."""
    assert (grade({name: 480}, cited(f"{label}: 480")) == "high") is fits


def test_a_label_is_that_of_the_field_that_it_fits_best() -> None:
    """What another field is called is no label of this one, whatever words they share."""
    fields = {"shipping_cost": 5, "shopping_cost": 5, "total": 9, "net_total": 9, "grand_total": 9}
    told = mapped(fields, cited("Shipping cost: 5"), cited("\nNet total: 9"))
    grades = {name: citations[0]["grade"] for name, citations in told.items()}
    assert grades == {
        "shipping_cost": "high",
        "shopping_cost": "low",
        "total": "low",
        "net_total": "high",
        "grand_total": "low",
    }


def test_a_quote_labelled_as_another_field_is_no_good_evidence() -> None:
    """The answer may call it what it wants: the document says what the number is."""
    fields = {"net_total": 24.5, "grand_total": 24.5}
    told = mapped(fields, ("Grand total: 24.50", [cite(1, "Net total: 24.50")]))
    assert told["grand_total"][0]["grade"] == "low"
    assert told["net_total"][0]["grade"] == "high"


def test_the_nearest_label_is_the_value_s() -> None:
    """Of several labels in a line, each value has the one before it."""
    told = mapped({"rooms": 5, "baths": 2, "floors": 5}, cited("Rooms: 5, baths: 2; floors: 5"))
    assert {one[0]["grade"] for one in told.values()} == {"high"}
    assert grade({"rooms": 2}, cited("Rooms: 5, baths: 2")) == "low"


def test_a_value_in_many_places_is_capped_and_low() -> None:
    """A year in every footer is nobody's evidence; a label makes it so."""
    footers = [cited(f"\nReport of 2024, part {chr(64 + page)}", page) for page in range(1, 30)]
    told = mapped({"report_year": 2024}, *footers)["report_year"]
    assert len(told) == 5
    assert {one["grade"] for one in told} == {"low"}
    assert told[0]["reason"].endswith("stands in many places")
    told = mapped({"report_year": 2024}, *footers, cited("\nReport year: 2024", 30))["report_year"]
    assert [(one["page_start"], one["grade"]) for one in told] == [(30, "high")]
    labelled = [cited("\nReport year: 2024", page) for page in range(1, 9)]
    assert len(mapped({"report_year": 2024}, *labelled)["report_year"]) == 8


# Values


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (480.0, ["480", "480.00", "$480", "$480.00", "480,00 €", "EUR 480", "480USD", "US$ 480"]),
        (
            318204,
            ["318,204", "$318,204", "318.204", "318 204", "318'204", "318.204,00", "3,18,204"],
        ),
        (0.91666, ["0.92", "0.917", "91.67%", "91.67 percent"]),
        (4.25, ["4.25", "4,25", "4.25%", "4,25 Prozent"]),
        (0.0425, ["4.25%", "0.0425", "4.25 per cent"]),
        (0.5, [".5", "0.50", "0,5", "50 %"]),
        (1_500_000, ["1.5 million", "$1.5M", "1,5 Mio. €", "€1.5mn", "1500 thousand", "1,500k"]),
        (2_000_000_000, ["two billion", "2bn", "2 billion", "2 Mrd. EUR", "2 milliards"]),
        (-500.0, ["(500)", "($500)", "$(500.00)", "-500", "\u2212500", "-$500", "500.00-"]),
        (Decimal("1234.50"), ["1,234.50", "1.234,5", "1 234,50", "1'234.50"]),
        (12345.678, ["12,345.678", "12.345,68"]),
        (-0.05, ["-5%", "(5%)", "-0.05"]),
    ],
)
def test_numbers_in_their_usual_spellings(value: float | Decimal, texts: list[str]) -> None:
    """A number maps in each spelling that people and accounts have for it."""
    for text in texts:
        assert grade({"amount": value}, cited(f"Amount: {text}")) == "high", text


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (
            5,
            [
                "$1,500",
                "1.5",
                "15",
                "2025-03-05",
                "March 5, 2025",
                "5th",
                "B5",
                "5G",
                "v5.1",
                "10:05",
            ],
        ),
        (
            5,
            ["5 million", "5/7", "5-7", "0.5", "(5.1)", "1 005", "A-5", "5-A", "500", "05.06.2025"],
        ),
        (1.5, ["1,500", "$1,500", "11.5", "1.55", "1.5.2", "1.5 million"]),
        (500, ["-500", "1,500", "500.01", "500,5", "1\u00a0500"]),
        (-500, ["500", "x(500)y", "a-500"]),
        (0.0125, ["0.01", "0.02", "0.1"]),
        (2024, ["March 2024", "2024-05-01", "1 May 2024", "05/2024"]),
        (1, ["100%"]),
    ],
)
def test_a_number_is_whole(value: float, texts: list[str]) -> None:
    """It is never a part of another number, a date, a range, a code or a word."""
    for text in texts:
        assert mapped({"amount": value}, cited(f"Amount: {text}")) == {}, text


def test_a_separate_number_in_a_group_is_low_at_best() -> None:
    """In "10 000", which may be one number, 10 is no good match."""
    assert grade({"total": 10}, cited("Total: 10 000 kr")) == "low"
    assert grade({"total": 10000}, cited("Total: 10 000 kr")) == "high"


def test_other_numbers_tell_what_a_point_means() -> None:
    """Where the document has "2.300,50", its "1.500" is fifteen hundred and "1,500" is 1.5."""
    rent = cited("\nRent: 2.300,50")
    assert grade({"area": 1500}, cited("Area: 1.500"), rent) == "high"
    assert mapped({"area": 1.5}, cited("Area: 1.500"), rent) == {}
    assert grade({"area": 1.5}, cited("Area: 1,500"), rent) == "high"
    assert mapped({"area": 1500}, cited("Area: 1.500"), cited("\nRent: 2,300.50")) == {}
    assert grade({"area": 1500}, cited("Area: 1.500"), cited("\nSection 4.2")) == "high"
    assert grade({"area": 1500}, cited("Area: 1.500"), rent, cited("\nLevel 4.25")) == "high"


def test_a_spelt_number_in_brackets_is_no_loss() -> None:
    """Contracts write "thirty (30) days"."""
    assert grade({"days": 30}, cited("Days: thirty (30)")) == "high"
    assert mapped({"days": -30}, cited("Days: thirty (30)")) == {}


DAY = date(2025, 3, 14)


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-14",
        "2025/03/14",
        "March 14, 2025",
        "March 14 2025",
        "Mar 14, 2025",
        "Mar. 14th, 2025",
        "14 March 2025",
        "14th of March 2025",
        "14-Mar-2025",
        "14/Mar/2025",
        "the 14th day of March, 2025",
        "14 Mar 25",
        "3/14/2025",
        "03/14/25",
        "14/3/2025",
        "14-03-2025",
        "14.03.2025",
        "14. 3. 2025",
        "14.03.25",
        "14. März 2025",
        "14 mars 2025",
        "14 de marzo de 2025",
        "Friday, 14 March 2025",
        "2025-03-14T09:30:00Z",
    ],
)
@pytest.mark.parametrize("value", [DAY, datetime(2025, 3, 14, 9, 30), "2025-03-14"], ids=str)  # noqa: DTZ001 - as models have it
def test_dates_in_their_usual_spellings(text: str, value: Any) -> None:
    """A date maps in words and figures, day or month first, with years of two digits."""
    assert grade({"when": value}, cited(f"When: {text}")) == "high"


def test_days_and_months_that_cannot_be_told_apart() -> None:
    """The grade is lowered, unless another date of the document fixes the order."""
    when, block = date(2025, 4, 3), cited("When: 03/04/2025")
    assert grade({"when": when}, block) == "medium"
    assert grade({"when": when}, block, cited("\nSigned 25/03/2025")) == "high"
    assert mapped({"when": when}, block, cited("\nSigned 03/25/2025")) == {}
    assert grade({"when": when}, block, cited("\n25/03/2025, 03/25/2025")) == "medium"
    assert grade({"when": date(2025, 3, 3)}, cited("When: 03/03/2025")) == "high"
    told = ("When: April 3, 2025", [cite(1, "When: 03/04/2025")])
    assert grade({"when": when}, told) == "medium"


def test_no_other_day_matches() -> None:
    """A date is whole, and a month is not another one."""
    for text in (
        "2025-03-141",
        "2025-03-15",
        "13 March 2025",
        "March 2025",
        "14 March",
        "4.03.2025",
    ):
        assert mapped({"when": DAY}, cited(f"When: {text}")) == {}, text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("north yard", "North Yard"),
        ("  North Yard ", "NORTH YARD"),
        ('"North Yard"', "North Yard"),
        ("North Yard", "“North Yard”"),
        ("North Yard", "North\n  Yard"),
        ("North\tYard", "North\u00a0Yard"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("Straße", "STRASSE"),
        ("file", "ﬁle"),
        ("O'Neill", "O\u2019Neill"),
        ("long-term", "long\u2010term"),
        ("North Yard.", "North Yard"),
        ("**North** Yard", "North Yard"),
        ("international", "inter-\nnational"),
    ],
)
def test_texts_in_their_usual_spellings(value: str, text: str) -> None:
    """Case, quotes, composition, blanks, line breaks and hyphens at line ends do not matter."""
    assert grade({"name": value}, cited(f"Name: {text}")) == "high"


def test_texts_are_whole_words() -> None:
    """A text is no part of a word or a number, and as part of a compound it is low."""
    for value, text in [("art", "Artist"), ("Yard", "Yards"), ("417", "1,417"), ("41", "41-7")]:
        assert mapped({"name": value}, cited(f"Name: {text}")) == {}
    assert grade({"name": "Weber"}, cited("Name: Weber-Meier")) == "low"


def test_texts_of_two_letters_need_a_label() -> None:
    """Words such as "us" stand everywhere."""
    assert grade({"country": "US"}, cited("Country: US")) == "high"
    assert mapped({"country": "US"}, cited("Tell us the country")) == {}


class Color(Enum):
    """Of which one value is a text, and one a number."""

    RED = "signal_red"
    BLUE = 7


def test_enums_map_by_their_value() -> None:
    """The value counts, with blanks for underscores, and not the member's name."""
    assert grade({"color": Color.RED}, cited("Color: Signal red")) == "high"
    assert grade({"color": Color.BLUE}, cited("Color: 7")) == "high"
    assert mapped({"color": Color.RED}, cited("Color: RED")) == {}


def test_booleans_map_by_a_label_alone() -> None:
    """They never map by 1, 0 or true, and are medium at best."""
    assert mapped({"ok": True, "off": False}, cited("1 and 0, true and false, yes and no")) == {}
    assert mapped({"has_pool": True}, cited("Has pool: 1")) == {}
    assert mapped({"has_pool": True}, cited("Has pool: no")) == {}
    assert grade({"has_pool": True}, cited("Has pool: yes")) == "medium"
    assert grade({"has_pool": False}, cited("Has pool: false")) == "medium"


def test_what_is_empty_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """None, empty texts, lists and dicts map nothing and count in no warning."""
    fields = {"a": None, "b": "", "c": "  ", "d": [], "e": {}, "rent": 900}
    assert list(mapped(fields, cited('Rent: 900 None "" [] {}'))) == ["rent"]
    assert caplog.records == []


def test_other_values() -> None:
    """Times, ids and addresses are texts."""
    some, site = UUID("12345678-1234-5678-1234-567812345678"), AnyUrl("https://example.org")
    fields = {"at": time(9, 30), "ref": some, "site": site}
    told = mapped(fields, cited(f"At: 09:30, ref: {some}, site: https://example.org"))
    assert list(told) == list(fields)
    assert {one[0]["grade"] for one in told.values()} == {"high"}


# Nested answers


class Position(BaseModel):
    """A line item."""

    name: str
    price: float


class Place(BaseModel):
    """Where something is."""

    city: str


@dataclass
class Shop:
    """Of a program, and no model."""

    owner: str


class Order(BaseModel):
    """With all that nests."""

    number: int = Field(alias="orderNo", title="Auftrag")
    ship_to: Place | None = None
    positions: list[Position] = []
    sights: list[str] = []
    shop: Shop | None = None


ORDER = Order(
    orderNo=77,
    ship_to=Place(city="Lisbon"),
    positions=[Position(name="Lamp", price=19.9), Position(name="Cable", price=4.6)],
    sights=["Tower"],
    shop=Shop(owner="Ada"),
)
ORDER_BLOCKS = [
    cited("Number: 77"),
    cited("\nCity: Lisbon"),
    cited("\nLamp: 19.90"),
    cited("\nCable: 4.60"),
    cited("\nSights: Tower"),
    cited("\nOwner: Ada"),
]
PATHS = [
    "number",
    "ship_to.city",
    "positions[0].name",
    "positions[0].price",
    "positions[1].name",
    "positions[1].price",
    "sights[0]",
    "shop.owner",
]


def test_leaves_are_named_by_paths() -> None:
    """Nested models, lists of models and dicts map leaf by leaf, in the order of the fields."""
    assert list(mapped(ORDER, *ORDER_BLOCKS)) == PATHS
    assert list(mapped(ORDER.model_dump(), *ORDER_BLOCKS)) == PATHS


def test_equal_values_of_items_have_their_own_places() -> None:
    """Items of a list are sought in its order, each around a place of its own."""
    same = {"name": "Lamp", "price": 4.6}
    blocks = [cited(f"\nLamp: 4.60, copy {page}", page) for page in (1, 2, 3)]
    told = mapped({"items": [same, same, same]}, *blocks)
    pages = {path: [one["page_start"] for one in its] for path, its in told.items()}
    assert pages == {f"items[{i}].{name}": [i + 1] for i in range(3) for name in ("name", "price")}


def test_an_item_of_its_own_value_has_all_its_citations() -> None:
    """Where no other item of a list has the same value, each citation of the best grade counts."""
    blocks = [cited("Sights: Tower, Castle", 1), cited("\nSights: Castle", 2)]
    told = mapped({"sights": ["Castle", "Tower"]}, *blocks)
    assert [one["page_start"] for one in told["sights[0]"]] == [1, 2]
    assert [one["page_start"] for one in told["sights[1]"]] == [1]


def test_values_of_an_item_stand_near_one_another() -> None:
    """A price is sought beside its item's name, also where another item has the same."""
    items = [{"name": "Lamp", "price": 4.6}, {"name": "Bulb", "price": 4.6}]
    blocks = [cited("Bulb: 4.60", 2), cited("\nCable: 4.60", 3), cited("\nLamp: 4.60", 1)]
    told = mapped({"items": items}, *blocks)
    assert [told[f"items[{i}].price"][0]["page_start"] for i in (0, 1)] == [1, 2]


def test_what_all_items_share_leads_no_item_astray() -> None:
    """A currency that is told once for all rows is cited for each, and moves no row's price."""
    items = [{"currency": "EUR", "name": name, "price": 4.6} for name in ("Lamp", "Bulb", "Cord")]
    blocks = [cited(f"\n{one['name']}: 4.60", page) for page, one in enumerate(items, 1)]
    blocks += [cited("\nAll prices in EUR.", 4)]
    told = mapped({"items": items}, *blocks)
    pages = {path: its[0]["page_start"] for path, its in told.items()}
    for i in range(3):
        names = [f"items[{i}].{name}" for name in ("currency", "name", "price")]
        assert [pages[name] for name in names] == [4, i + 1, i + 1]


def test_items_of_one_block_have_the_citations_that_quote_them() -> None:
    """Of a block with several citations, an item has those that quote most of it."""
    items = [{"name": "Lamp", "price": 4.6}, {"name": "Bulb", "price": 4.6}]
    block = ("A lamp for 4.60, a bulb for 4.60", [cite(1, "Lamp 4.60"), cite(2, "Bulb 4.60")])
    told = mapped({"items": items}, block)
    assert {path: its[0]["page_start"] for path, its in told.items()} == {
        "items[0].name": 1,
        "items[0].price": 1,
        "items[1].name": 2,
        "items[1].price": 2,
    }
    assert all(len(its) == 1 for its in told.values())


def test_an_alias_maps_as_the_name_does() -> None:
    """A field maps by its name, its alias and its title, and is called by its name."""
    for label in ("Number", "Order no.", "Auftrag"):
        told = mapped(Order(orderNo=77), cited(f"{label}: 77"))
        assert [(path, its[0]["grade"]) for path, its in told.items()] == [("number", "high")]


def test_a_label_may_name_the_field_above() -> None:
    """Of two cities, the label with the right parent's name tells which one it is."""
    fields = {"billing": {"city": "Lisbon"}, "shipping": {"city": "Lisbon"}}
    told = mapped(fields, cited("Billing city: Lisbon", 1), cited("\nShipping city: Lisbon", 2))
    assert {path: [one["page_start"] for one in its] for path, its in told.items()} == {
        "billing.city": [1],
        "shipping.city": [2],
    }


# Truth


def told_of(fields: Any, blocks: list[Block], source: list[str] | str | None) -> Citation:
    (citations,) = map_citations(fields, blocks, source).values()
    (citation,) = citations
    return citation


def test_only_the_pages_verify() -> None:
    """Verified is what stands on the pages that the citation names; without pages, nothing is."""
    block = ("Total: 29.16", [cite(2, None)])
    fields = {"total": 29.16}
    assert told_of(fields, [block], ["", "Total: 29.16"])["verified"]
    for source in (["Total: 29.16", ""], [], ["Total: 129.16"] * 2, ""):
        citation = told_of(fields, [block], source)
        assert (citation["verified"], citation["grade"]) == (False, "low")
    assert (told_of(fields, [block], None)["verified"]) is False


def test_a_wrong_answer_is_neither_verified_nor_high() -> None:
    """The answer says 92.16 where the page that it quotes says 29.16."""
    for quote in ("Grand total: 29.16", "Grand total: 92.16", None):
        block = ("Grand total: 92.16", [cite(1, quote)])
        citation = told_of({"grand_total": 92.16}, [block], ["Grand total: 29.16"])
        assert (citation["verified"], citation["grade"]) == (False, "low")


def test_a_quote_is_corrected_to_its_page() -> None:
    """A quote is of the page on which it stands; if that is none, it is not verified."""
    pages = ["Supplier: Weber &\nSons", "Terms", "Weber & Sons, again"]
    for named in (2, 9, None):
        block = ("Supplier: Weber & Sons", [cite(named, "Supplier: Weber & Sons")])
        citation = told_of({"supplier": "Weber & Sons"}, [block], pages)
        assert (citation["page_start"], citation["page_end"]) == (1, 1)
        assert (citation["verified"], citation["grade"]) == (True, "high")
    made_up = ("Supplier: Weber & Sons", [cite(3, "The supplier is Weber & Sons of Porto")])
    assert told_of({"supplier": "Weber & Sons"}, [made_up], pages)["verified"] is False


def test_a_quote_may_go_over_a_page_break() -> None:
    """It stands on both of the pages that it names."""
    citation = cite(1, "The supplier is Weber & Sons") | {"page_end": 2}
    pages = ["Contract. The supplier is", "Weber & Sons, of Porto."]
    told = told_of({"supplier": "Weber & Sons"}, [("Supplier: Weber & Sons", [citation])], pages)
    assert (told["page_start"], told["page_end"], told["verified"]) == (1, 2, True)


def test_places_in_a_text_file_are_python_s() -> None:
    """A text file is one page; places that are not the quote's are corrected or left out."""
    text = "😀 Hello. Supplier: Weber & Sons. Bye."
    quote = "Supplier: Weber & Sons."
    right = text.index(quote)
    for start in (right, right + 1):
        citation = cite(None, quote) | {"char_start": start, "char_end": start + len(quote)}
        told = told_of({"supplier": "Weber & Sons"}, [("Supplier: Weber & Sons", [citation])], text)
        assert text[told["char_start"] : told["char_end"]] == quote
        assert (told["verified"], told["page_start"]) == (True, None)


def test_citations_survive() -> None:
    """Text, document and page come out as they went in, in a copy, and through JSON and back."""
    block = ("Total: 29.16", [cite(3, "Total: 29.16\u00a0€ 😀")])
    before = copy.deepcopy(block)
    told = map_citations({"total": 29.16}, [block], ["", "", "Total: 29.16 € 😀"])
    assert block == before
    (citation,) = told["total"]
    assert citation | {} == block[1][0] | {
        "field": "total",
        "grade": "high",
        "verified": True,
        "reason": "labelled 'Total'",
    }
    assert json.loads(json.dumps(told)) == told
    result = JobResult("a", citations=[dict(one) for one in told["total"]])
    assert JobResult.from_dict(json.loads(json.dumps(result.to_dict()))).citations == told["total"]


def test_most_fields_without_a_citation_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning names them in their order if they are more than half, and none without blocks."""
    fields = {"b": "North Yard", "a": 480, "ok": True, "none": None, "c": {"d": 7.5}}
    with caplog.at_level(logging.WARNING):
        assert map_citations(fields, []) == {}
        assert caplog.messages == []
        mapped(fields, cited("A: 480, b: North Yard"))
        assert caplog.messages == []
        mapped(fields, cited("A: 480"))
    assert caplog.messages == ["no citation supports 2 of 3 fields: b, c.d"]
