"""Draws docs/progress.svg: the display in the middle of a run of 200 jobs against the emulator."""

from __future__ import annotations

import os
import re
import time
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from batchata_tasks import Batch
from batchata_tasks.emulator import Emulator
from batchata_tasks.progress.layout import run_lines

_WIDTH, _HEIGHT = 100, 24


def main() -> None:
    """Run until some batches have landed and others are open, and draw the display of then."""
    with TemporaryDirectory() as folder, Emulator() as emulator:
        os.environ |= {
            **emulator.env(),
            "BATCHATA_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
            "BATCHATA_POLL_INTERVAL": "0.2",
        }
        emulator.control.faults(kind="never_ends", provider="anthropic", share=0.4)
        emulator.control.faults(kind="request_refusal", contains="number 7")
        seen: list[tuple[dict[str, Any], float, dict[str, dict[str, Any]]]] = []
        batch = Batch(f"{folder}/out", items_per_batch=20, cost_limit_usd=0.25).set_default_params(
            max_tokens=150
        )
        for number in range(200):
            batch.add_job(
                prompt=f"Describe number {number}.",
                model="gpt-6-luna" if number < 120 else "claude-haiku-5-5",  # noqa: PLR2004
            )
        run = batch.run(
            wait=False, on_progress=lambda *state: seen.append(state), progress_interval=0.1
        )
        while not seen or seen[-1][0]["batches"] != {"landed": 6, "submitted": 4}:
            time.sleep(0.1)
        run.shutdown(wait_for_active=False)
    stats, elapsed, batches = seen[-1]
    console = Console(record=True, width=_WIDTH, file=StringIO())
    for line in run_lines(stats, elapsed, list(batches.values()), (_WIDTH, _HEIGHT), time.time()):
        console.print(line)
    drawn = console.export_svg(title="batchata", theme=SVG_EXPORT_THEME)
    # without these rules, a page that shows it fetches no fonts
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    Path(__file__).with_name("progress.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
