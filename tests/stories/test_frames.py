"""Frames: each kind comes back as it was, with answers; all that holds for specs holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel, field_validator

from batchata_tasks import InputError, SpecError, enrich
from batchata_tasks.api.enrich import SpecOptions
from batchata_tasks.emulator import Emulator
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.loading import parse_spec
from tests.support.commands import start
from tests.support.operations import preview
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.pipeline.receipt import Receipt

MODEL = "claude-haiku-5-5"
IDS = [30, 10, 20]
TEXTS = ["drei", "eins", "zwei"]


class Label(BaseModel):
    """A response model."""

    label: str
    score: int
    good: bool | None
    words: list[str]


ANSWERS = ["label", "score", "good", "words"]
NEW = [*ANSWERS, "_status", "_error", "_cost_usd"]


@pytest.fixture(autouse=True)
def folder(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, against the emulator."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(frame: Any, **changes: Any) -> Any:
    given = {
        "key": "id",
        "prompt": "Label {{ text }}",
        "response_model": Label,
        "model": MODEL,
        "output": "out",
        "max_tokens": 200,
    }
    return enrich(frame, **{**given, **changes})


def pandas_frame(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": IDS, "text": TEXTS, **more}, index=pd.Index(["x", "y", "x"]))


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame({"id": IDS, "text": TEXTS})


def arrow_table() -> pa.Table:
    return pa.table({"id": IDS, "text": pa.array(TEXTS).dictionary_encode()})


def relation() -> duckdb.DuckDBPyRelation:
    rows = ", ".join(
        f"({i}, '{t}', '09:30:00+01'::TIMETZ)" for i, t in zip(IDS, TEXTS, strict=True)
    )
    return duckdb.connect().sql(f"SELECT * FROM (VALUES {rows}) t(id, text, opens)")


def requests_of(emulator: Emulator) -> int:
    return int(emulator.control.ledger()["anthropic"]["requests_accepted"])


def test_a_pandas_frame_keeps_rows_order_index_and_columns() -> None:
    """Answers are typed: integers and truths may be null, lists are lists, costs are decimals."""
    frame = pandas_frame(other=[object(), 1, "mixed"])
    before = frame.copy()
    result = ask(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(result[list(frame.columns)], before)
    assert list(result.columns) == [*frame.columns, *NEW]
    assert [str(result[name].dtype) for name in ("score", "good")] == ["Int64", "boolean"]
    assert isinstance(result["words"].iloc[0], list)
    assert isinstance(result["_cost_usd"].iloc[0], Decimal)
    assert list(result["_status"]) == ["succeeded"] * 3
    by_id = ask(polars_frame()).sort("id")["label"].to_list()
    assert result.set_index("id").sort_index()["label"].tolist() == by_id


def test_a_polars_frame(emulator: Emulator) -> None:
    """Eager and lazy ones come back as such."""
    result = ask(polars_frame())
    assert result.columns == ["id", "text", *NEW]
    assert result.schema["words"] == pl.List(pl.String)
    assert result["id"].to_list() == IDS
    lazy = ask(polars_frame().lazy())
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect().equals(result)
    assert requests_of(emulator) == 3


def test_arrow(emulator: Emulator) -> None:
    """Tables, batches, and readers, which can be read only once; encodings of theirs stay."""
    table = arrow_table()
    result = ask(table)
    assert result.select(["id", "text"]).equals(table)
    assert result.schema.names == ["id", "text", *NEW]
    (batch,) = table.to_batches()
    assert ask(batch).equals(result.to_batches()[0])
    reader = ask(table.to_reader(max_chunksize=2))
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.read_all().equals(result)
    assert requests_of(emulator) == 3


def test_a_relation_of_duckdb(emulator: Emulator) -> None:
    """It stays on its connection, in its types, also those that a dataset has no type for."""
    given = relation().order("id DESC")
    result = ask(given)
    assert result.columns == ["id", "text", "opens", *NEW]
    assert result.types[:3] == given.types
    assert [row[0] for row in result.fetchall()] == [30, 20, 10]
    assert result.filter("id = 10").fetchall()[0][1:3] == given.filter("id = 10").fetchall()[0][1:3]
    assert requests_of(emulator) == 3


def test_a_path_gives_the_dataset(folder: Path) -> None:
    """What a path names is read as a spec reads it; its dataset is the result."""
    polars_frame().write_csv(folder / "t.csv")
    data = ask("t.csv", columns=["text"])
    assert data == folder / "out/data"
    assert sorted(pl.read_parquet(data)["text"]) == sorted(TEXTS)


@pytest.mark.parametrize("make", [pandas_frame, polars_frame, arrow_table, relation])
def test_only_what_changed_is_sent(emulator: Emulator, make: Callable[[], Any]) -> None:
    """The second call sends nothing, whatever kind of frame it has, or the first one had."""
    ask(make())
    assert requests_of(emulator) == 3
    ask(make())
    ask(polars_frame().with_columns(new=1))
    assert requests_of(emulator) == 3
    ask(pl.concat([polars_frame(), pl.DataFrame({"id": [40], "text": ["vier"]})]))
    assert requests_of(emulator) == 4


def test_the_class_itself_checks_the_answers(emulator: Emulator) -> None:
    """A class that only this program has: its validators judge, and the row says what they said."""

    class Strict(BaseModel):
        label: str

        @field_validator("label")
        @classmethod
        def _never(cls, value: str) -> str:
            message = f"{len(value)} letters are wrong"
            raise ValueError(message)

    result = ask(polars_frame(), response_model=Strict, max_attempts=1)
    assert result["_status"].to_list() == ["invalid"] * 3
    assert result["label"].null_count() == 3
    assert all("letters are wrong" in error for error in result["_error"])


def test_rows_that_were_not_sent_say_so() -> None:
    """Left out by the spec, or beyond a limit: nulls, and the reason."""
    result = ask(polars_frame(), where="id != 10", limit=1)
    assert result["_status"].to_list() == ["succeeded", None, None]
    assert result["_error"].to_list() == [None, "left out by `where`", "not sent: beyond `limit`"]
    assert result["label"].null_count() == 2


def test_answers_to_an_older_question_are_none() -> None:
    """If a limit keeps a row from being sent anew, its older answer is not passed off as this."""
    ask(polars_frame())
    result = ask(polars_frame(), prompt="Anew: {{ text }}", limit=1)
    assert result["_status"].to_list() == ["succeeded", None, None]
    assert "the dataset has an answer to an earlier question" in result["_error"][1]
    kept = ask(polars_frame(), prompt="Again: {{ text }}", rerun_on=["new"])
    assert kept["_status"].to_list() == ["succeeded"] * 3


def test_answers_of_requests_that_did_not_run_are_none(emulator: Emulator) -> None:
    """The dataset keeps the answer to the earlier question; the frame does not pass it off."""
    ask(polars_frame())
    emulator.control.faults(kind="request_expired", contains="eins")
    result = ask(polars_frame(), prompt="Anew: {{ text }}")
    assert result["_status"].to_list() == ["succeeded", None, "succeeded"]
    assert result["_error"][1].startswith("not answered: its request did not run; the dataset has")


def test_rehearsed_answers_are_none(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an emulator made up is no answer, whatever keeps a row from being sent for real."""
    with Emulator() as made_up, monkeypatch.context() as patch:
        for name, value in made_up.env().items():
            patch.setenv(name, value)
        assert ask(polars_frame())["_status"].to_list() == ["succeeded"] * 3
    result = ask(polars_frame(), where="id != 10", limit=1)
    assert result["_status"].to_list() == ["succeeded", None, None]
    assert result["_error"].to_list()[1:] == ["left out by `where`", "not sent: beyond `limit`"]
    assert result["label"].null_count() == 2


def test_a_cost_limit_binds(emulator: Emulator) -> None:
    """A limit of nothing sends nothing, and each row says why it has no answer."""
    result = ask(polars_frame(), cost_limit_usd=0)
    assert result["_status"].null_count() == 3
    assert set(result["_error"]) == {"not sent: cost limit reached"}
    assert requests_of(emulator) == 0


def test_no_rows() -> None:
    """A frame without rows comes back with the columns, typed."""
    for frame in (polars_frame().head(0), arrow_table().slice(0, 0), pandas_frame().head(0)):
        result = ask(frame, output=f"out-{type(frame).__module__}")
        assert len(result) == 0
    assert ask(arrow_table().slice(0, 0)).schema.field("score").type == pa.int64()
    assert ask(relation().limit(0)).fetchall() == []


def test_keys_of_an_index() -> None:
    """The names of a pandas index are keys as columns are."""
    frame = pandas_frame().set_index(["id", "text"])
    result = ask(frame, key="id", prompt="{{ text }}")
    assert list(result.index) == list(frame.index)
    assert list(result.columns) == NEW


def test_what_pandas_calls_missing_is_null(emulator: Emulator) -> None:
    """NaN, NaT and NA are nulls in every kind of column, and `on_null` decides."""
    frame = pandas_frame(note=["a", float("nan"), pd.NA], n=[1.5, None, 2.5])
    with pytest.raises(InputError, match=r"'note' that the templates use is null in row 2 \(id=10"):
        ask(frame, prompt="{{ text }} {{ note }}")
    result = ask(frame, prompt="{{ text }} {{ note }} {{ n }}", on_null="skip")
    assert list(result["_error"].fillna("")) == ["", "left out for a null", "left out for a null"]


def test_objects_of_rows_are_their_own(emulator: Emulator) -> None:
    """Dicts in a pandas column are JSON: a row is not sent again since another row has more."""
    asked = {"prompt": "{{ text }} {{ meta }}"}
    ask(pandas_frame(meta=[{"a": 1}, {"b": [1]}, None]), on_null="pass", **asked)
    ask(pandas_frame(meta=[{"a": 1}, {"b": [1], "c": "new"}, None]), on_null="pass", **asked)
    assert requests_of(emulator) == 4


@pytest.mark.parametrize(
    ("frame", "changes", "says"),
    [
        ([1], {}, "a list is no frame; give a pandas or Polars frame"),
        (pandas_frame(label="x"), {}, "frame: it has a column 'label', and the answers have one"),
        (pandas_frame(_status="x"), {}, "frame: it has a column '_status'"),
        (pandas_frame().set_axis(["id", "id"], axis=1), {}, "has two columns named 'id'; rename"),
        (pandas_frame(id=[1, 1, 2]), {}, "rows 1 and 2 of the source have the same key (id=1)"),
        (pandas_frame(), {"key": "nope"}, "key: the source has no column 'nope'"),
        (pandas_frame(), {"promt": "x"}, "enrich: unknown key `promt`; did you mean `prompt`?"),
        (pandas_frame(), {"metadata": ["_stat"]}, "metadata: there is no column '_stat'"),
        (pandas_frame(), {"types": {"id": "int"}}, "types: a frame has no such option"),
        (pandas_frame(text=[object(), "a", "b"]), {}, "the frame row 1: the column 'text'"),
        (pandas_frame(text=["a", 1, "b"]), {}, "of the type int, and others before it are not"),
        (pandas_frame(text=pd.period_range("2026", periods=3)), {}, "has no type of Arrow"),
        (pl.DataFrame({"id": IDS, "text": [object()] * 3}), {}, "'text' of the frame has no type"),
    ],
)
def test_what_is_refused(emulator: Emulator, frame: Any, changes: Any, says: str) -> None:
    """In one sentence, before anything is sent."""
    with pytest.raises(InputError) as caught:
        ask(frame, **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert requests_of(emulator) == 0


def test_a_renamed_key_is_told_with_what_a_call_can_do(emulator: Emulator) -> None:
    """No command renames columns of a frame's dataset, so that none is named."""
    ask(pandas_frame())
    renamed = pandas_frame().rename(columns={"id": "ticket"})
    with pytest.raises(SpecError, match=r"call it 'id' again, in frame and call\.$"):
        ask(renamed, key="ticket")
    assert requests_of(emulator) == len(renamed)


def test_a_frame_is_no_source_of_a_file(folder: Path) -> None:
    """A spec's file cannot name a frame, and the sentence says where one is given."""
    values = {
        "name": "x",
        "source": {"frame": "pandas"},
        "key": "id",
        "prompt": "{{ a }}",
        "model": "claude-haiku-5-5",
        "output": "out",
    }
    with pytest.raises(InputError, match=r"a frame is given in Python"):
        preview(parse_spec(values))


@pytest.mark.parametrize("source", ["x.csv", {"frame": "pandas"}])
def test_a_frame_is_the_one_source_of_its_call(folder: Path, source: Any) -> None:
    """Another one would be read instead of it, and paid for."""
    with pytest.raises(SpecError, match="source: the frame is the source"):
        ask(pa.table({"id": ["a"], "text": ["b"]}), source=source)


def test_an_output_is_a_path() -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(SpecError, match="output: None is no path; name the folder"):
        enrich(
            pa.table({"id": ["a"], "text": ["b"]}),
            key="id",
            prompt="{{ text }}",
            model="claude-haiku-5-5",
            output=None,  # pyright: ignore[reportArgumentType, reportCallIssue]
        )


def test_the_ways_of_a_call(folder: Path) -> None:
    """Metadata and floats as the caller wants them, and the receipt of the run."""
    receipts: list[Receipt] = []
    result = ask(
        pandas_frame(),
        metadata="all",
        decimals="float",
        on_receipt=receipts.append,
        columns=["text"],
    )
    assert result["_cost_usd"].dtype == "float64"
    assert str(result["_enriched_at"].dtype) == "datetime64[us, UTC]"
    assert receipts[0].outcomes == {"succeeded": 3}
    assert list(ask(pandas_frame(), metadata=[]).columns) == ["id", "text", *ANSWERS]
    assert pl.read_parquet(folder / "out/data").columns[:2] == ["id", "text"]
    text = ask(polars_frame(), response_model=None, output="texts")
    assert text.columns == ["id", "text", "response", *NEW[-3:]]
    with pytest.raises(SpecError, match="not both"):
        ask(polars_frame(), response_schema={"type": "object"})


@pytest.mark.parametrize("make", [pandas_frame, polars_frame, arrow_table, relation])
def test_a_dry_run_sends_and_writes_nothing(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    """It returns the plan, without a key, and a run does what it says."""
    with monkeypatch.context() as patch:
        patch.delenv("ANTHROPIC_API_KEY")
        plan = ask(make(), dry_run=True)
        assert plan.summary.requests == 3
        assert plan.in_the_way == ("ANTHROPIC_API_KEY is not set: `run` needs it",)
        assert "To send: 3 requests in 1 batch to anthropic" in repr(plan)
        assert "3 requests in 1 batch" in plan._repr_html_()
        with pytest.raises(SpecError, match="frame: it has a column"):
            ask(pandas_frame(label=1), dry_run=True)
    assert list(folder.iterdir()) == []
    assert requests_of(emulator) == 0
    ask(make(), limit=2)
    assert ask(make(), dry_run=True).summary.requests == 1
    assert ask(make(), dry_run=True, refresh=True).summary.requests == 3
    assert requests_of(emulator) == 2


def test_a_dry_run_over_a_path_is_the_plan_of_its_spec(folder: Path) -> None:
    """It refuses what a run would refuse."""
    (folder / "x.csv").write_text("id,text\n1,a\n")
    assert ask("x.csv", dry_run=True).summary.requests == 1
    with pytest.raises(InputError, match="key"):
        ask("x.csv", key="no_such_column", dry_run=True)


def test_every_key_of_a_spec_is_an_argument() -> None:
    """What a spec can say, a call can say, and nothing else."""
    own = {"key", "model", "output", "prompt", "response_model"}
    assert (
        SpecOptions.__annotations__.keys() | own | {"source"} == EnrichmentSpec.model_fields.keys()
    )


KILLED = f"""
import polars as pl
from pydantic import BaseModel
from batchata_tasks import enrich

class Label(BaseModel):
    label: str

frame = pl.DataFrame({{"id": {IDS}, "text": {TEXTS}}})
print(enrich(frame, key="id", prompt="{{{{ text }}}}", response_model=Label, model="{MODEL}",
             output="out", max_tokens=200)["label"].to_list())
"""


def test_a_call_that_was_killed_is_carried_on(emulator: Emulator, folder: Path) -> None:
    """The same call, in another process, finds the open batch: nothing is paid twice."""
    emulator.control.progress("reads", 10**6)
    try:
        with start("-c", KILLED, cwd=folder) as first:
            until(lambda: requests_of(emulator) == 3)
            first.send_signal(signal.SIGKILL)
    finally:
        emulator.control.progress("immediate")
    again = start("-c", KILLED, cwd=folder, env={"BATCHATA_LEASE_SECONDS": "1.5"}).wait()
    assert again.returncode == 0, again.stderr
    assert len(re.findall(r"'[^']+'", again.stdout)) == 3
    assert requests_of(emulator) == 3


def test_no_library_is_imported_for_frames_of_another(folder: Path) -> None:
    """A frame of Arrow needs neither Polars, nor DuckDB, nor Prefect (Arrow imports pandas)."""
    code = """
import sys
import pyarrow as pa
from batchata_tasks import enrich
table = enrich(pa.table({"id": [1], "text": ["a"]}), key="id", prompt="{{ text }}",
               model="claude-haiku-5-5", output="out")
assert table["_status"].to_pylist() == ["succeeded"]
print(sorted({"polars", "duckdb", "prefect"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
