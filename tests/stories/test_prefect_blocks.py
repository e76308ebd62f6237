"""Blocks of credentials on a Prefect server, as runs of deployments and commands use them."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.commands import batchata, python
from tests.support.jobs import sent
from tests.support.paths import ROOT
from tests.support.table import open_batches
from tests.support.team import SPEC, Team
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.emulator import Emulator
    from tests.support.commands import Process
    from tests.support.prefect_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 400  # of the table that is shipped
SECRET = "canary-of-a-block"
PAGE = (ROOT / "docs/prefect.md").read_text(encoding="utf-8")
SAVES = """
from batchata_tasks.flows.credentials import AnthropicCredentials

AnthropicCredentials(api_key={key!r}, base_url={address!r}).save({name!r}, overwrite=True)
"""
# a flow of each kind, and a plain program, in which an event loop may run
READS = """
import asyncio
from prefect import flow
from batchata_tasks.providers import open_adapter

def read() -> str:
    adapter = open_adapter("anthropic", block={name!r})
    assert {key!r} not in repr(vars(adapter)) + repr(adapter.credentials)
    return adapter.secret.replace({key!r}, "as saved")

@flow
def plain():
    print("in a flow:", read())

@flow
async def awaited():
    print("in an async flow:", read())

async def main():
    print("in a loop:", read())

print("in a program:", read())
asyncio.run(main())
plain()
asyncio.run(awaited())
"""


# what a worker does with a pool's template
STARTS = """
import asyncio, json
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.workers.process import ProcessJobConfiguration

Secret(value={secret!r}).save("ledger-url", overwrite=True)

async def main():
    async with get_client() as client:
        template = (await client.read_work_pool("local")).base_job_template
        job = await ProcessJobConfiguration.from_template_and_values(
            template, {given!r}, client=client
        )
        print(json.dumps(job.env))

asyncio.run(main())
"""


@pytest.fixture
def team(tmp_path: Path, server: Server, emulator: Emulator) -> Team:
    """Return a team whose spec names a block `research`, and whose keys are another account's."""
    team = Team(tmp_path / "team", server, emulator, tmp_path.name.replace("_", "-"))
    team.change(SPEC, r"(?m)^(model: .*)$", r"\1\ncredentials: research")
    team.env["ANTHROPIC_API_KEY"] = "acct:environment:key"
    return team


def key_of(account: str, number: int = 1) -> str:
    return f"acct:{account}:{SECRET}-{number}"


def save(team: Team, emulator: Emulator, key: str, name: str = "research") -> None:
    """Save a block as code does; the type is registered by that."""
    code = SAVES.format(key=key, address=emulator.anthropic_url, name=name)
    done = python(code, cwd=team.folder, env=team.env)
    assert done.returncode == 0, done.stderr


def accounts(emulator: Emulator) -> list[str]:
    """Return the accounts of the batches that were sent."""
    ledger = emulator.control.ledger(detail=True)["anthropic"]
    return [batch["account"] for batch in ledger["batches"]]


def command(team: Team, *words: str, env: Mapping[str, str] | None = None) -> Process:
    return batchata(*words, cwd=team.folder, env={**team.env, **(env or {})})


def executed(team: Team, flow_run: str) -> dict[str, Any]:
    """Do a flow run as a worker does; return it as the server has it then."""
    run, said = team.execute(flow_run)
    assert SECRET not in said
    return run


def test_the_types_are_registered_by_one_command(team: Team) -> None:
    """The forms of both are in the UI then, with the key as a secret."""
    printed = team.prefect("block", "register", "-m", "batchata_tasks.flows.credentials")
    for name in ("Anthropic", "OpenAI"):
        assert f"Batchata {name} Credentials" in printed
        slug = f"batchata-{name.lower()}-credentials"
        kind = team.server.get(f"block_types/slug/{slug}")
        (schema,) = team.server.ask(
            "block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
        )
        assert schema["fields"]["secret_fields"] == ["api_key"]


def test_the_pages_blocks_are_saved_as_printed(team: Team) -> None:
    """The commands and the code of docs/prefect.md leave a block of each type."""
    script, code = printed("bash")[0], printed("python")[0]
    team.prefect(*script.split()[1:])
    done = python(code, cwd=team.folder, env={**team.env, "ANTHROPIC_API_KEY": SECRET})
    assert done.returncode == 0, done.stderr
    for slug in ("batchata-anthropic-credentials", "batchata-openai-credentials"):
        saved = team.server.get(f"block_types/slug/{slug}/block_documents/name/research")
        assert saved["data"]["api_key"] == "********"


def test_the_pages_pool_fills_in_a_secret_when_a_run_starts(team: Team) -> None:
    """Its template has the block's name, and a run has the value beside its deployment's own."""
    team.prefect("work-pool", "create", "local", "--type", "process")
    script = f"set -eu\n{printed('bash')[1]}"
    path = f"{Path(sys.executable).parent}:{team.env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=team.folder,
        env={**team.env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "prefect.blocks.secret" in json.dumps(team.server.get("work_pools/local"))
    given = yaml.safe_load(next(text for text in printed("yaml") if "name: local" in text))
    code = STARTS.format(secret=SECRET, given=given["work_pool"]["job_variables"])
    done = python(code, cwd=team.folder, env=team.env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "BATCHATA_LEDGER_URL": SECRET,
        **given["work_pool"]["job_variables"]["env"],
    }


def printed(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_a_block_is_read_wherever_code_runs(team: Team, emulator: Emulator) -> None:
    """In a program, in a flow, and where an event loop runs; its key is in no repr."""
    save(team, emulator, key_of("research"))
    code = READS.format(name="research", key=key_of("research"))
    done = python(code, cwd=team.folder, env=team.env)
    assert done.returncode == 0, done.stderr
    for place in ("program", "loop", "flow", "async flow"):
        assert f"in a{'n' * (place[0] == 'a')} {place}: as saved" in done.stdout


def test_commands_use_the_block(team: Team, emulator: Emulator) -> None:
    """A run without Prefect does, as do status and cancel; a wrong name is one sentence."""
    save(team, emulator, key_of("research"))
    wrong = command(team, "run", SPEC, "--direct", "--set", "credentials=sales", "--set", "limit=5")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1), wrong.stderr
    assert "'sales' (Batchata Anthropic Credentials) is not on the Prefect server" in wrong.stderr
    assert sent(emulator) == 0
    done = command(team, "run", SPEC, "--direct", "--set", "limit=5", "--set", "pilot=false")
    assert done.returncode == 0, done.stderr
    assert accounts(emulator) == ["research"]
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    lost = command(team, "run", SPEC, "--direct", env=nowhere)
    assert (lost.returncode, lost.stderr.count("\n")) == (2, 1), lost.stderr
    assert "does not answer" in lost.stderr
    assert SECRET not in done.stdout + done.stderr + wrong.stderr + lost.stderr


def test_a_deployments_run_keeps_to_its_account(team: Team, emulator: Emulator) -> None:
    """It is suspended, watched and resumed with the block's account, whose key is rotated.

    Prefect's database, the ledger and all files of the team hold no key.
    """
    pool = team.name
    team.work_in(pool)
    team.prefect("work-pool", "create", pool, "--type", "process")
    team.prefect("--no-prompt", "deploy", "--all")
    save(team, emulator, key_of("research"))
    team.watch_every_minute()
    run = team.begin(spec=SPEC, overrides={"pilot": False})
    with open_batches(emulator):
        assert executed(team, run)["state_name"] == "Suspended"
        save(team, emulator, key_of("research", 2))
        assert json.loads(command(team, "watch", "--once", "--json").stdout)["notes"] == []
    looked = json.loads(command(team, "watch", "--once", "--json").stdout)
    assert (looked["resumed"], looked["notes"]) == ([run], [])
    done = executed(team, run)
    assert done["state_name"] == "Completed"
    assert "400 succeeded" in done["state"]["message"]
    assert pq.read_table(team.ledger.output / "data").num_rows == sent(emulator) == ROWS
    assert accounts(emulator) == ["research"]
    given_away = [path for path in team.folder.rglob("*") if path.is_file() and in_file(path)]
    assert given_away == []
    assert not in_file(team.server.home / ".prefect/prefect.db")


def in_file(path: Path) -> bool:
    """Whether a file holds a key of the tests', also if it is spread over a database's pages."""
    raw = path.read_bytes()
    if raw.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(path)) as database:
            raw = "\n".join(database.iterdump()).encode(errors="replace")
    return SECRET.encode() in raw
