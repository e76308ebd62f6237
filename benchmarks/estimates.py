"""Estimates: the cost that a plan expects after one finished batch, against the actual cost.

Each case runs 100 rows of data/packages.csv, which calibrate, and then plans and runs the other
300, for answers whose lengths the emulator draws: short ones, lognormal and heavy-tailed (Pareto)
ones, in English and in Japanese. The figures are tokens and money, not times: they are the same on
every machine.

    python benchmarks/estimates.py            # writes estimates.md beside this file
    python benchmarks/estimates.py SEEDS      # with SEEDS seeds for each case, instead of 10
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import Emulator
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import parse_spec

if TYPE_CHECKING:
    from batchata_tasks.spec.enrichment import EnrichmentSpec

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("estimates.md")
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
CALIBRATION_ROWS = 100
PROMPTS = {
    "en": "{{ name }}: {{ summary }}",
    "ja": "次のパッケージを日本語で詳しく説明してください。{{ name }}: {{ summary }}",
}
# with 150 tokens on average and a cap of 1024, about one Pareto answer in 180 is cut
SETTINGS: dict[str, dict[str, Any]] = {
    "lognormal, sigma 1": {"lengths": "lognormal", "mean": 150, "sigma": 1.0},
    "Pareto, alpha 1.5": {"lengths": "pareto", "mean": 150, "alpha": 1.5},
}
HEAD = """# Expected cost against actual cost

For each case, 100 rows of data/packages.csv ran as one batch; then `batchata plan` gave the
expected cost of the other 300 rows, and they ran. The error is (expected - actual) / actual.
`guess` is the error of the first plan, before any batch had finished: rules of thumb for input, a
quarter of the cap (at most 200 tokens) for output.

- *plain* is the shipped spec, `deployments/specs/package-topics.yaml`: short structured answers.
- The others answer in plain text under `max_tokens: 1024`; the emulator draws their lengths with a
  mean of 150 tokens before the cap cuts them. Truncated answers are sent again with a larger cap;
  the cost of that is in both figures.
- Each seed draws other lengths for the same rows. With heavy tails, the mean of 100 answers is
  itself uncertain by some 20 %, and no method can know better from one batch: more finished
  batches (up to 20 count) reduce the error.

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
        "pilot": False,
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
        first = parse_spec({**spec, "limit": CALIBRATION_ROWS})
        return _run_error(first), _run_error(parse_spec(spec))


def _run_error(spec: EnrichmentSpec) -> float:
    """Plan a spec and run it; return the error of the expected cost."""
    expected = preview(spec, Settings()).summary.expected
    return _error(expected, enrich(spec).cost_usd)


def _error(expected: int | None, actual: str | None) -> float:
    assert expected is not None
    assert actual is not None
    return float(Decimal(expected).scaleb(-12) / Decimal(actual) - 1)


def line_of(case: Case, runs: list[tuple[float, float]]) -> str:
    errors = sorted(error for _, error in runs)
    within = sum(abs(error) <= 0.15 for error in errors)
    cells = [
        case.answers,
        case.language,
        case.provider,
        str(len(runs)),
        f"{median(guess for guess, _ in runs):+.0%}",
        f"{errors[0]:+.1%}",
        f"{median(errors):+.1%}",
        f"{errors[-1]:+.1%}",
        f"{median(map(abs, errors)):.1%}",
        f"{within} of {len(runs)}",
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
        for answers, language, provider in product(("plain", *SETTINGS), PROMPTS, MODELS):
            case = Case(answers, language, provider)
            number = 1 if answers == "plain" else seeds
            runs = [errors_of(emulator, case, seed) for seed in range(number)]
            lines.append(line_of(case, runs))
            print(lines[-1], flush=True)
    TABLE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
