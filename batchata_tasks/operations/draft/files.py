"""The files beside a drafted spec: the response model, deployments, and what git ignores."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from secrets import token_hex

from batchata_tasks.operations.draft.spec_file import as_yaml

# of the response model: its fields, unless the table carries columns of these names along
FIELDS = ("category", "summary", "confidence")
CLASS = "Answer"
AUTOMATIONS = "automations.yaml"

_MODELS = '''\
"""Response models: the shapes that answers must have. Each field becomes a column."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Answer(BaseModel):
    """What the model answers for one row."""

    # The model reads the descriptions. If a name or a type changes, all rows are sent again.
    {category}: str = Field(description="The category that fits best, in one to three words.")
    {summary}: str = Field(description="One sentence that says what the record is about.")
    {confidence}: float = Field(ge=0, le=1, description="How sure the answer is, from 0 to 1.")
    # A field that the record may not tell is `| None`:
    # language: str | None = Field(description="Language of the text; null if it is unclear.")
    # A closed list of values is a Literal (`from typing import Literal`):
    # urgency: Literal["low", "high"] = Field(description="How soon somebody has to act.")
'''

_PREFECT = """\
# Deployments of the spec {file}. From this folder, this registers them:
#   prefect --no-prompt deploy --all{option}
# Before it, once: a server (`prefect server start`, in a terminal of its own), its address
# (`prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`), and the work pool
# (`prefect work-pool create local --type process`). Without a server, Prefect's commands end in
# a traceback with `httpx.ConnectError`.
# The server knows them by their names: a spec of another team needs another name.
name: {name}

definitions:
  name: &name {name}   # the spec's own name
  spec: &spec {spec}
  origin: &origin {origin}   # drawn once; a tag that tells these deployments from another project's
  # A run inherits the API keys and the ledger of the worker that takes it. If a worker of another
  # team serves this work pool, name one of your own: here, and in the commands that name `local`.
  pool: &pool local

# Stops if the server has deployments of this name that another project made, and replaces none.
# Then registers the automations; those that are there are brought up to date.
build:
  - batchata_tasks.flows.deploying.refuse_taken: {{name: *name, origin: *origin}}
  - batchata_tasks.flows.automations.register: {{file: automations.yaml}}

# The folder that runs work in: paths in the spec, and its response model, are looked up there.
# This one, on a machine that workers share. Elsewhere a step that clones your repository.
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{{{ $PWD }}}}"

deployments:
  # No concurrency limit: a run that finds another one at work ends as AlreadyRunning by itself.
  - name: *name
    description: Send the rows that are new or changed since the last run, and land the answers.
    entrypoint: batchata_tasks.flows.enrich.enrich
    parameters: {{spec: *spec}}
    work_pool:
      name: *pool
      job_variables:
        env:
          PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30"   # seconds; automations.yaml misses them after 90
          PREFECT_CLIENT_RETRY_EXTRA_CODES: "500"   # answered while the database is away
    schedules:
      - cron: "0 3 * * *"
        timezone: UTC
        active: false   # true: every night, up to the spec's cost limit
    tags: [batchata, batchata-enrich, *origin]

  - name: *name
    description: Tell what a run would send, why, and what it would cost. Sends nothing.
    entrypoint: batchata_tasks.flows.plan.plan
    parameters: {{spec: *spec}}
    work_pool: {{name: *pool}}
    tags: [batchata, *origin]

  - name: *name
    description: Cancel the open batches of the spec and land what ran.
    entrypoint: batchata_tasks.flows.cancel.cancel
    parameters: {{spec: *spec}}
    work_pool: {{name: *pool}}
    tags: [batchata, *origin]

  - name: *name
    description: Compare the providers' batches with the ledger, and adopt ours.
    entrypoint: batchata_tasks.flows.reconcile.reconcile
    work_pool: {{name: *pool}}
    tags: [batchata, *origin]

  # One for all specs of a work pool, whose workers have one ledger as a rule: hence its name.
  - name: *pool
    description: Resume the runs whose batches ended, and land what no run is there for.
    entrypoint: batchata_tasks.flows.watch.watch
    work_pool:
      name: *pool
      job_variables:
        env:
          PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30"
          PREFECT_CLIENT_RETRY_EXTRA_CODES: "500"
    schedules:
      - cron: "* * * * *"
        active: true
    # Not one: a pass that is lost holds its slot until the next one notices. Passes do not disturb
    # each other. After an hour without a worker, sixty are late: not all of them begin.
    concurrency_limit: {{limit: 3, collision_strategy: CANCEL_NEW}}
    tags: [batchata, batchata-watch]
"""


def answer_fields(carried: list[str]) -> dict[str, str]:
    """Return the names of the answer's fields: other than those of the carried columns."""
    taken = {name.casefold() for name in carried}
    fields = dict[str, str]()
    for field in FIELDS:
        name = field
        while name in taken:
            name = f"answer_{name}"
        fields[field] = name
    return fields


def models_text(carried: list[str]) -> str:
    """Return a Python module with a response model, beside whose fields columns are carried."""
    return _MODELS.format(**answer_fields(carried))


def prefect_text(name: str, spec: str, file: str) -> str:
    """Return a prefect.yaml with the deployments of a spec; `file` is its own name."""
    option = "" if file == "prefect.yaml" else f" --prefect-file {file}"
    origin = f"batchata-origin-{token_hex(4)}"
    written = {"name": as_yaml(name), "spec": as_yaml(spec)}
    return _PREFECT.format(**written, file=spec, option=option, origin=origin)


def automations_text() -> str:
    """Return the automations of a Prefect server: what is done about lost workers and limits.

    In a checkout they are where its own deployments have them; a wheel contains a copy.
    """
    shipped = Path(__file__).with_name(AUTOMATIONS)
    path = shipped if shipped.exists() else Path(__file__).parents[3] / "deployments" / AUTOMATIONS
    return path.read_text(encoding="utf-8").replace(f"deployments/{AUTOMATIONS}", AUTOMATIONS)


def ignored(output: str) -> list[str]:
    """Return what git is to ignore: what runs write, and files with secrets."""
    path = PurePosixPath(output)
    lines = [".env", ".venv/", "__pycache__/"]
    # what lies elsewhere is not this folder's to ignore
    inside = not path.is_absolute() and ".." not in path.parts and "://" not in output
    return [f"/{path}/", *lines] if inside else lines
