"""Estimates: what a plan expects a run to cost, against what the run then cost, after one finished batch of the spec.

Each case runs 100 rows of data/packages.csv, which calibrate, and then plans and runs the other 300, for answers
whose lengths the emulator draws: short ones, lognormal and heavy-tailed (Pareto) ones, in English and in Japanese.
The figures are tokens and money, no times: the same on every machine.

    python benchmarks/estimates.py            # writes estimates.md beside this file
    python benchmarks/estimates.py SEEDS      # with so many seeds a case, instead of 10
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from batchata_tasks.emulator import Emulator
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import parse_spec

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("estimates.md")
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
CALIBRATES, ALL = 100, 400
PROMPTS = {
    "en": "{{ name }}: {{ summary }}",
    "ja": "次のパッケージを日本語で詳しく説明してください。{{ name }}: {{ summary }}",
}
# mean tokens 150 under a cap of 1024: one Pareto answer in about 180 is cut
SETTINGS: dict[str, dict[str, Any]] = {
    "lognormal, sigma 1": {"lengths": "lognormal", "mean": 150, "sigma": 1.0},
    "Pareto, alpha 1.5": {"lengths": "pareto", "mean": 150, "alpha": 1.5},
}
HEAD = """# Expected cost against actual cost

For each case, 100 rows of data/packages.csv ran as one batch; then `batchata plan` said what the other 300 rows were
expected to cost, and they ran. The error is (expected - actual) / actual. `guess` is the error of the first plan,
before any batch had finished: rules of thumb for input, a quarter of the cap (at most 200 tokens) for output.

- *plain* is the shipped spec, `deployments/specs/package-topics.yaml`: short structured answers.
- The others answer in plain text under `max_tokens: 1024`; the emulator draws their lengths with a mean of 150 tokens
  before the cap cuts them. Truncated answers go again with a larger cap; what that costs is in both figures.
- Seeds draw other lengths for the same rows. With heavy tails the mean of 100 answers is itself uncertain by some
  20 %, and no method can know better from one batch: more finished batches (up to 20 count) narrow it.

"""


@dataclass(frozen=True)
class Case:
    """One distribution of answers in one language from one provider."""

    answers: str
    language: str
    provider: str


def spec_of(case: Case, output: Path) -> dict[str, Any]:
    plain = {
        "name": "estimates",
        "source": str(ROOT / "data/packages.csv"),
        "key": "name",
        "model": MODELS[case.provider],
        "prompt": PROMPTS[case.language],
        "output": str(output),
    }
    if case.answers != "plain":
        return {**plain, "max_tokens": 1024}
    system = "You label Python packages for a catalogue."
    return {
        **plain,
        "system": system,
        "response_model": str(ROOT / "deployments/models.py:Topic"),
        "max_tokens": 256,
    }


def errors_of(emulator: Emulator, case: Case, seed: int) -> tuple[float, float]:
    """Run one case; return the errors of the guess and of the calibrated plan."""
    emulator.control.reset()
    if case.answers != "plain":
        emulator.control.answers(**SETTINGS[case.answers], seed=seed, language=case.language)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BATCHATA_LEDGER_URL"] = f"sqlite:///{folder}/ledger.db"
        spec = spec_of(case, Path(folder) / "out")
        first = parse_spec({**spec, "limit": CALIBRATES})
        guess, began = preview(first).summary.expected, enrich(first).cost_usd
        expected, ended = (
            preview(parse_spec(spec)).summary.expected,
            enrich(parse_spec(spec)).cost_usd,
        )
    return _error(guess, began), _error(expected, ended)


def _error(expected: int | None, actual: str | None) -> float:
    assert expected is not None
    assert actual is not None
    return float(Decimal(expected).scaleb(-12) / Decimal(actual) - 1)


def line_of(case: Case, found: list[tuple[float, float]]) -> str:
    errors = sorted(error for _, error in found)
    within = sum(abs(error) <= 0.15 for error in errors)
    cells = [
        case.answers,
        case.language,
        case.provider,
        str(len(found)),
        f"{median(guess for guess, _ in found):+.0%}",
        f"{errors[0]:+.1%}",
        f"{median(errors):+.1%}",
        f"{errors[-1]:+.1%}",
        f"{median(map(abs, errors)):.1%}",
        f"{within} of {len(found)}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    os.chdir(ROOT)
    columns = (
        "answers",
        "language",
        "provider",
        "seeds",
        "guess",
        "least",
        "median",
        "greatest",
        "median of size",
        "within 15 %",
    )
    lines = [f"| {' | '.join(columns)} |", "|---|---|---|" + "---:|" * (len(columns) - 3)]
    with Emulator() as emulator:
        os.environ.update(emulator.env(), BATCHATA_POLL_INTERVAL="0.05")
        for answers in ("plain", *SETTINGS):
            for language in PROMPTS:
                for provider in MODELS:
                    case = Case(answers, language, provider)
                    runs = 1 if answers == "plain" else seeds
                    lines.append(
                        line_of(case, [errors_of(emulator, case, seed) for seed in range(runs)])
                    )
                    print(lines[-1], flush=True)
    TABLE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
