"""Takes the pictures in docs/pictures: what Prefect's UI shows of runs in each state.

Run `python -m docs.make_pictures` in the repository's folder. It needs Chromium, and some
minutes: a Prefect server, a worker and the emulator run on loopback meanwhile.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

from batchata_tasks.emulator import Emulator
from tests.support.prefect_server import Server
from tests.support.team import SPEC, Team
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Generator

    from websockets.sync.connection import Connection

PICTURES = Path(__file__).parent / "pictures"
_RECEIPT = "receipt-package-topics"
_WIDTH = 1280  # pixels
_MOST_BYTES = 150_000
_DRAWN = 8.0  # seconds until charts are drawn, and faded in
_GONE = 2.0  # seconds until the page before is gone
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# the middle of a tab, as JSON
_TAB = """
(() => {{
    const named = one => one.textContent.trim() === {name};
    const tab = [...document.querySelectorAll("a, button, li")].find(named);
    const {{x, y, width, height}} = tab.getBoundingClientRect();
    return JSON.stringify({{x: x + width / 2, y: y + height / 2}});
}})()
"""


class Browser:
    """A headless Chromium, driven by its DevTools protocol."""

    def __init__(self, page: Connection) -> None:
        self._page, self._calls = page, 0

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        self._page.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self._page.recv())
            if answer.get("id") == self._calls:
                return answer["result"]

    def _value(self, expression: str) -> str:
        found = self._call("Runtime.evaluate", expression=expression)
        return str(found["result"].get("value"))

    def _shows(self, text: str) -> bool:
        return text in self._value("document.body?.innerText ?? ''")

    def _click(self, tab: str) -> None:
        until(lambda: self._shows(tab), every=0.5)
        place = json.loads(self._value(_TAB.format(name=json.dumps(tab))))
        for event in ("mousePressed", "mouseReleased"):
            click = {**place, "type": event, "button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", **click)

    def picture(
        self,
        name: str,
        url: str,
        shows: str,
        height: int,
        *,
        top: int = 0,
        tab: str | None = None,
    ) -> None:
        """Take a picture of a page from `top` on, once it, or its tab, shows a text."""
        print(name, url, flush=True)  # noqa: T201
        size = {"width": _WIDTH, "height": height + top, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=url)
        time.sleep(_GONE)
        if tab is not None:
            self._click(tab)
        until(lambda: self._shows(shows), every=0.5)
        time.sleep(_DRAWN)
        clip = {"x": 0, "y": top, "width": _WIDTH, "height": height, "scale": 1}
        taken = self._call("Page.captureScreenshot", format="png", clip=clip)
        path = PICTURES / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        if path.stat().st_size > _MOST_BYTES:
            print(f"{name} has more than {_MOST_BYTES:,} bytes: make it less high.")  # noqa: T201


@contextmanager
def browser(folder: Path) -> Generator[Browser, None, None]:
    """Start Chromium with a profile of its own."""
    program = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if program is None:
        sys.exit("Chromium takes the pictures: install it first.")
    words = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    words += ["--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = subprocess.Popen([*words, "about:blank"], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        opened = folder / "DevToolsActivePort"
        until(opened.exists)
        port = until(opened.read_text).split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as page:
            yield Browser(page)
    finally:
        process.terminate()
        process.wait(30)


class Runs:
    """Runs of the shipped example, each with a dataset of its own."""

    def __init__(self, team: Team, emulator: Emulator) -> None:
        self._team, self._emulator = team, emulator

    def start(self, dataset: str, wait: str = "process", **overrides: Any) -> str:
        """Start a run; return its id."""
        changes = {"output": f"data/out/{dataset}", "pilot": False, **overrides}
        body = {"parameters": {"spec": SPEC, "overrides": changes, "wait": wait}}
        deployed = self._team.deployment("enrich")["id"]
        run = self._team.server.ask(f"deployments/{deployed}/create_flow_run", body)
        return str(run["id"])

    def come_to(self, run: str, *names: str) -> None:
        """Wait until a run is in a state of one of these names."""
        until(lambda: self._state(run)["name"] in names, every=1)

    def _state(self, run: str) -> dict[str, Any]:
        return dict(self._team.server.get(f"flow_runs/{run}")["state"])

    def ended(self, dataset: str, state: str, **overrides: Any) -> str:
        """Start a run, and wait for its end in a state."""
        run = self.start(dataset, **overrides)
        self.come_to(run, state, "Failed", "Completed")
        if (found := self._state(run))["name"] != state:
            sys.exit(f"the run for {dataset} is {found['name']}, not {state}: {found['message']}")
        return run


def main() -> None:
    """Bring runs into the states, and take a picture of each."""
    PICTURES.mkdir(exist_ok=True)
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Server(Path(folder)) as server,
        Emulator() as emulator,
        browser(Path(folder) / "chromium") as chromium,
    ):
        team = Team(Path(folder) / "team", server, emulator)
        team.prefect("work-pool", "create", "local", "--type", "process")
        team.prefect("--no-prompt", "deploy", "--all")
        team.start_worker("local")
        try:
            _take(chromium, server.url.removesuffix("/api"), team, Runs(team, emulator), emulator)
        finally:
            team.lose_worker()


def _take(browser: Browser, ui: str, team: Team, runs: Runs, emulator: Emulator) -> None:
    control = emulator.control
    completed = runs.ended("package_topics", "Completed", items_per_batch=100)
    limits = {"items_per_batch": 100, "cost_limit_usd": 0.004}
    limited = runs.ended("within_limit", "CostLimitReached", **limits)
    control.faults(kind="request_refusal", share=0.3)
    failed = runs.ended("refused", "Failed", fail_if={"failed_share": 0.1})
    control.clear_faults()
    control.progress("reads", 10**6)
    team.watch_every_minute()  # its first pass may not have come yet
    suspended = runs.start("suspended", "suspend", items_per_batch=100)
    runs.come_to(suspended, "Suspended")
    running = runs.start("running", items_per_batch=100)
    runs.come_to(running, "Running")
    time.sleep(20)  # the batches are sent, and its tasks are on the server

    wanted = {"artifacts": {"flow_run_id": {"any_": [completed]}, "key": {"any_": [_RECEIPT]}}}
    (receipt,) = team.server.ask("artifacts/filter", wanted)
    page, deployed = f"{ui}/runs/flow-run", team.deployment("enrich")["id"]
    browser.picture("run-list", f"{ui}/runs", "CostLimitReached", 650, top=600)
    browser.picture("running", f"{page}/{running}", "13 Task runs", 500)
    browser.picture("suspended", f"{page}/{suspended}", "waiting for", 935, tab="Details")
    browser.picture("failed", f"{page}/{failed}", "of the rows failed", 935, tab="Details")
    browser.picture("cost-limit", f"{page}/{limited}", "not sent", 935, tab="Details")
    # above its last line, the dataset's folder
    browser.picture("receipt", f"{ui}/artifacts/artifact/{receipt['id']}", "Outcomes", 712)
    browser.picture("form", f"{ui}/deployments/deployment/{deployed}/run", "overrides", 1300)
    control.progress("immediate")
    runs.come_to(running, "Completed")


if __name__ == "__main__":
    main()
