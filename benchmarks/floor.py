"""The floor: the least that any program must do for the same rows, over raw HTTP.

It reads the table, builds the request bodies, sends them in batches, polls, downloads, parses the
answers, joins them by custom_id and writes one Parquet file. It checks nothing, records nothing,
syncs nothing to disk, has no prices and cannot be interrupted: doing all that is what a product
costs beyond it.

    python benchmarks/floor.py SOURCE OUTPUT PROVIDER

The emulator's (or the provider's) URL and key come from the SDKs' own environment variables.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workload import Case

_POLL_SECONDS = 0.05
_FIELDS = tuple(workload.SCHEMA["properties"])
_SCHEMA = orjson.dumps(workload.SCHEMA).decode()


def main() -> None:
    """Enrich the source table into one Parquet file."""
    source, output, provider = sys.argv[1:]
    case = next(case for case in workload.CASES if case.provider == provider)
    table = pq.read_table(source, columns=["ticket_id", "customer", "opened", "text"])
    run = _anthropic if provider == "anthropic" else _openai
    with (
        httpx2.Client(timeout=600) as client,
        pq.ParquetWriter(output, _output_schema(table)) as writer,
    ):
        for start in range(0, table.num_rows, case.rows_per_batch):
            part = table.slice(start, case.rows_per_batch)
            answers = dict(run(client, part, case))
            fields = [answers.get(str(i)) or {} for i in range(part.num_rows)]
            columns = [part[name] for name in ("ticket_id", "customer", "opened")]
            columns += [pa.array([row.get(name) for row in fields]) for name in _FIELDS]
            writer.write_table(pa.table(columns, schema=writer.schema))


def _output_schema(table: pa.Table) -> pa.Schema:
    kinds = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}
    carried = [table.schema.field(name) for name in ("ticket_id", "customer", "opened")]
    answers = [
        pa.field(name, kinds[schema["type"]])
        for name, schema in workload.SCHEMA["properties"].items()
    ]
    return pa.schema([*carried, *answers])


def _prompts(part: pa.Table) -> Iterator[str]:
    """Yield each row's prompt as JSON text."""
    for customer, text in zip(part["customer"].to_pylist(), part["text"].to_pylist(), strict=True):
        yield orjson.dumps(workload.PROMPT.format(customer=customer, text=text)).decode()


def _anthropic(client: httpx2.Client, part: pa.Table, case: Case) -> Iterator[tuple[str, Any]]:
    url = f"{os.environ['ANTHROPIC_BASE_URL']}/v1/messages/batches"
    client.headers.update(
        {
            "x-api-key": os.environ["ANTHROPIC_API_KEY"],
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        }
    )
    system = orjson.dumps(workload.SYSTEM).decode()
    fixed = f'"model":"{case.model}","max_tokens":{workload.MAX_TOKENS},"system":{system}'
    form = f'"output_config":{{"format":{{"type":"json_schema","schema":{_SCHEMA}}}}}'
    lines = [
        f'{{"custom_id":"{i}","params":'
        f'{{{fixed},"messages":[{{"role":"user","content":{prompt}}}],{form}}}}}'
        for i, prompt in enumerate(_prompts(part))
    ]
    body = f'{{"requests":[{",".join(lines)}]}}'.encode()
    created = client.post(url, content=body).raise_for_status()
    batch = f"{url}/{created.json()['id']}"
    while client.get(batch).json()["processing_status"] != "ended":
        time.sleep(_POLL_SECONDS)
    for line in _lines(client, f"{batch}/results"):
        yield line["custom_id"], orjson.loads(line["result"]["message"]["content"][0]["text"])


def _openai(client: httpx2.Client, part: pa.Table, case: Case) -> Iterator[tuple[str, Any]]:
    url = os.environ["OPENAI_BASE_URL"]
    client.headers["authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
    fixed = f'"model":"{case.model}","max_completion_tokens":{workload.MAX_TOKENS}'
    system = f'{{"role":"system","content":{orjson.dumps(workload.SYSTEM).decode()}}}'
    named = f'{{"name":"Ticket","schema":{_SCHEMA},"strict":true}}'
    form = f'"response_format":{{"type":"json_schema","json_schema":{named}}}'
    endpoint = "/v1/chat/completions"
    lines = [
        f'{{"custom_id":"{i}","method":"POST","url":"{endpoint}","body":'
        f'{{{fixed},"messages":[{system},{{"role":"user","content":{prompt}}}],{form}}}}}'
        for i, prompt in enumerate(_prompts(part))
    ]
    upload = {"file": ("requests.jsonl", "\n".join(lines).encode())}
    stored = client.post(f"{url}/files", data={"purpose": "batch"}, files=upload).raise_for_status()
    file_id = stored.json()["id"]
    create = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    batch = client.post(f"{url}/batches", json=create).raise_for_status().json()
    while batch["status"] not in ("completed", "failed"):
        time.sleep(_POLL_SECONDS)
        batch = client.get(f"{url}/batches/{batch['id']}").json()
    for line in _lines(client, f"{url}/files/{batch['output_file_id']}/content"):
        message = line["response"]["body"]["choices"][0]["message"]
        yield line["custom_id"], orjson.loads(message["content"])


def _lines(client: httpx2.Client, url: str) -> Iterator[Any]:
    for line in client.get(url).raise_for_status().content.splitlines():
        yield orjson.loads(line)


if __name__ == "__main__":
    main()
