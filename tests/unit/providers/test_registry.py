"""A third provider: registered by one call, and then like the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import Batch, Job, OpenAIProvider, SpecError
from batchata_tasks.providers import (
    Provider,
    known_providers,
    masked,
    provider_name,
    provider_type,
    register,
    registry,
)
from batchata_tasks.spec.loading import parse_spec
from tests.support.operations import reconcile
from tests.support.paths import ROOT, SUPPORT
from tests.support.table import SCHEMA
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

MODELS = ("claude-haiku-5-5", "gpt-6-luna", "house-luna")
TABLE = {
    "name": "table",
    "key": "id",
    "model": "house-luna",
    "prompt": "{{ text }}",
    "response_schema": SCHEMA,
    "max_tokens": 100,
}


def requests(emulator: Emulator) -> int:
    books = emulator.control.ledger()
    return sum(
        batch["requests"]
        for side in ("anthropic", "openai")
        for batch in books[side]["batches"]
        if batch["accepted"]
    )


def batch_of(folder: Path, count: int) -> Batch:
    batch = Batch(folder, items_per_batch=4).set_default_params(max_tokens=100)
    for number in range(count):
        batch.add_job(
            prompt=f"text {number}", id=str(number), model=MODELS[number % 3], response_model=SCHEMA
        )
    return batch


def test_jobs_of_three_providers_under_one_limit(
    emulator: Emulator, house: str, tmp_path: Path
) -> None:
    """Under a limit for a part of its jobs, a batch stops in time.

    With more money the rest follows, nothing twice, each job at its own price.
    """
    batch = batch_of(tmp_path / "out", 24)
    plan = batch.run(dry_run=True).plan
    assert plan is not None
    limit = plan.summary.least * 4 / 1e12
    first = batch.add_cost_limit(limit).run()
    assert first.receipt is not None
    assert (first.receipt.result, first.receipt.exit_code) == ("cost_limit_reached", 4)
    assert 0 < float(first.receipt.cost_usd or 0) <= limit
    assert 0 < requests(emulator) < 24
    run = batch.add_cost_limit(1).run()
    results = run.results()
    assert len(results) == requests(emulator) == 24
    assert all(result.is_success() and result.cost_usd > 0 for result in results.values())
    rows = {row["job_id"]: row for row in run.to_arrow().to_pylist()}
    assert {name: row["_provider"] for name, row in rows.items()} == {
        str(n): ("anthropic", "openai", "house")[n % 3] for n in range(24)
    }
    for row in rows.values():
        if row["_provider"] == "house":
            assert float(row["_cost_usd"]) == pytest.approx(
                (row["_input_tokens"] * 1.5 + row["_output_tokens"] * 3) / 1e6, rel=1e-12
            )
    raw = {path.suffix for path in (tmp_path / "out/raw_files/requests").glob("house_batch_*")}
    assert raw == {".jsonl"}
    report = reconcile()
    assert (report.known["house"], report.strays, report.notes) == (
        sum(one["requests"] > 0 for one in house_batches(emulator)),
        [],
        [],
    )


def house_batches(emulator: Emulator) -> list[dict[str, Any]]:
    """Return the house's batches: on the OpenAI side, under its own account."""
    ours = {batch["id"]: batch for batch in emulator.control.ledger()["openai"]["batches"]}
    return [ours[look.batch_id] for look in provider_type("house")().recent(0.0)]


def test_without_a_price_no_limit(emulator: Emulator, house: str, tmp_path: Path) -> None:
    """A model of a third provider that prices.toml does not name is refused under a limit."""
    batch = Batch(tmp_path / "out").add_job(prompt="x", id="1", model="house-sol").add_cost_limit(1)
    with pytest.raises(SpecError, match="no batch price is known for 'house-sol'"):
        batch.run()
    assert requests(emulator) == 0


def test_names_that_nobody_registered(emulator: Emulator, tmp_path: Path) -> None:
    """An unknown provider is refused in one sentence, wherever it is named; no other is used."""
    sentence = (
        "is unknown here (there are: anthropic, openai); check its spelling, or register it first."
    )
    for wrong in (
        lambda: Job("1", "house-luna", prompt="x", provider="house").destination(),
        lambda: Batch(tmp_path / "out").add_job(prompt="x", model="gpt-6-luna", provider="opanai"),
        lambda: provider_type("house"),
        lambda: parse_spec({**TABLE, "source": "a.csv", "output": "out", "provider": "house"}),
    ):
        with pytest.raises(SpecError) as caught:
            wrong()
        assert sentence in str(caught.value)
    with pytest.raises(SpecError, match="`provider`: must be a text"):
        parse_spec({**TABLE, "source": "a.csv", "output": "out", "provider": 3})


def test_a_spec_may_name_what_was_registered(house: str) -> None:
    """`provider:` accepts registered names, unless a model's name says otherwise."""
    spec = parse_spec(
        {**TABLE, "source": "a.csv", "output": "out", "provider": "house", "model": "llama-9"}
    )
    assert spec.destinations()[0].provider == "house"
    with pytest.raises(SpecError, match="'gpt-6-luna' is a model of openai, not of house"):
        provider_name("gpt-6-luna", "house")


def test_models_that_two_providers_claim(house: str) -> None:
    """If two providers claim a model's name, none is guessed: `provider` has to say."""
    register(provider_type("house"), models="^(house|gpt-6)-")
    with pytest.raises(
        SpecError, match="'gpt-6-luna' may be a model of openai or of house; name `provider:`"
    ):
        provider_name("gpt-6-luna")
    assert provider_name("gpt-6-luna", "house") == "house"
    assert provider_name("gpt-6-luna", "openai") == "openai"
    assert provider_name("house-luna") == "house"


def test_what_cannot_be_registered(house: str) -> None:
    """An incomplete adapter, a name that is taken or empty, and a broken expression are refused.

    Nothing changes.
    """
    whole = provider_type("house")
    before = known_providers()

    class Half(Provider):
        name = "half"

    class Thief(whole):
        name = "openai"

    class Nameless(whole):
        name = "Big House"

    for adapter, models, sentence in (
        (Half, "^half-", "Half: an adapter also needs answers, base_url, body, "),
        (Thief, "^x-", "there is already a provider 'openai'"),
        (Nameless, "^x-", "'Big House' is not a name"),
        (whole, "(", "models: '(' is not a regular expression"),
    ):
        with pytest.raises(SpecError) as caught:
            register(adapter, models=models)
        assert sentence in str(caught.value)
    assert known_providers() == before
    assert issubclass(OpenAIProvider, provider_type("openai"))


def test_the_example_of_the_docs(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code in docs/providers.md registers a provider as printed."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.syspath_prepend(str(SUPPORT))
    text = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    code = next(
        code
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if "register(" in code
    )
    assert "house" not in known_providers()
    exec(compile(code, "docs/providers.md", "exec"), {})
    assert provider_name("house-luna") == "house"


def test_keys_of_registered_providers_are_masked(house: str) -> None:
    """A text that quotes the key of a third provider does not give it away."""
    assert masked("the key acct:house:key is wrong") == "the key *** is wrong"


@pytest.fixture
def installed(emulator: Emulator, house: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process with an installed package of the third provider."""
    package = tmp_path / "site/house-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[batchata.providers]\nhouse = tests.support.house\n")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT)]),
    }


def command(
    environment: dict[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "batchata_tasks.cli", *arguments]
    return subprocess.run(
        call,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_an_installed_provider_works_from_the_command_line(
    installed: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    """A package whose entry point names its provider is all that `batchata run` needs.

    A broken one is reported in a sentence.
    """
    (tmp_path / "table.csv").write_text("id,text\n1,one\n2,two\n")
    (tmp_path / "spec.json").write_text(
        json.dumps({**TABLE, "source": "table.csv", "output": "out", "cost_limit_usd": 1})
    )
    done = command(installed, tmp_path, "run", "spec.json", "--direct", "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["provider"], requests(emulator)) == ("house", 2)
    (tmp_path / "site/house-1.0.dist-info/entry_points.txt").write_text(
        "[batchata.providers]\nhouse = no_such_module\n"
    )
    done = command(installed, tmp_path, "plan", "spec.json")
    assert done.returncode == 2
    assert (
        "no_such_module, a provider that an installed package names, cannot be loaded"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_built_in_adapters_are_imported_when_they_are_needed() -> None:
    """A provider's name alone imports no SDK."""
    code = (
        "import sys; from batchata_tasks.providers import provider_name; assert "
        "provider_name('gpt-6-luna') == 'openai'; print('openai' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.strip() == "False"
