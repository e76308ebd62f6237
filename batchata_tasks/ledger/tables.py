"""The ledger's tables. Money is in picodollars, times are microseconds since 1970 (UTC).

Users' ledgers live for years: columns are added by migrations, never reused.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 9

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("ledger_id", String(40), primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# one row for each dataset folder; the lease on it is the right to plan, send and commit
datasets = Table(
    "datasets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("url", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False, default=0),  # grows with every new holder
    Column("holder", Text),  # who holds the lease, as text for people: host, process, run
    Column("lease_until", BigInteger),
    Column("worked_by", Text),  # the work that held it last, by its name; null if it had none
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("dataset_id", String(40), nullable=False),
    Column("name", Text, nullable=False),  # the spec's
    Column("spec", Text, nullable=False),  # JSON
    Column("spec_digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # a RunPhase
    Column("result", String(32)),  # how it ended
    Column("error", Text),  # not written any more
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("refresh_before", BigInteger),  # rows landed before count as not landed
    Column("retry_failed", Integer, nullable=False, default=0),
    Column("cost_limit", BigInteger),
    Column("price_source", Text),
    Column("plan", Text),  # JSON: rows seen, up to date, per reason, upper bound
    Column("stop", String(16)),  # why it is to stop before its end: a StopReason
    # 1 if an emulator answers it: its money and its answers count for rehearsals alone. Null if an
    # older version began it, which did not know; it counts as real
    Column("rehearsal", Integer),
    Index("runs_dataset", "dataset_id", "state"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", String(40), primary_key=True),  # the token that its custom_ids carry
    Column("run_id", String(40), nullable=False),
    Column("dataset_id", String(40), nullable=False),
    Column("round", Integer, nullable=False),
    Column("kind", String(8), nullable=False),  # a ChunkKind
    Column("provider", String(32), nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", String(32), nullable=False),
    Column("start", BigInteger, nullable=False),  # its rows in the plan: start <= n < stop
    Column("stop", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("bound", BigInteger),  # upper price bound; null if the model has no known price
    Column("state", String(16), nullable=False),  # a ChunkState
    Column("batch_id", Text),
    Column("updated_at", BigInteger, nullable=False),
    # 1 once all its rows have been superseded
    Column("emptied", Integer, nullable=False, default=0, server_default="0"),
    Column("expected", BigInteger),  # what it is likely to cost; null if unknown
    # how often it was sent again since a create of unknown fate was proven to have failed
    Column("resends", Integer, nullable=False, default=0, server_default="0"),
    Column("tokens", BigInteger),  # that its requests are likely to have as input; null if unknown
    Index("chunks_run", "run_id", "state"),
    Index("chunks_dataset", "dataset_id", "state"),
)

# written and durable before the create is sent; the same facts stand in the dataset's own storage
intents = Table(
    "intents",
    metadata,
    Column("chunk_id", String(40), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    Column("input_file_id", Text),  # OpenAI: the uploaded request file
    # by the provider's clock: the batch cannot be older; null if the provider listed no batch
    Column("mark", BigInteger),
    # JSON: the settings that select the account, so that people can be told to set them again
    Column("scope", Text),
    Index("intents_account", "account"),
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("chunk_id", String(40), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("account", String(64), nullable=False),
    Column("status", String(32), nullable=False),  # as the provider spells it
    Column("requests_done", BigInteger),
    Column("submitted_at", BigInteger, nullable=False),
    Column("looked_at", BigInteger),
    Column("ended_at", BigInteger),
    Index("batches_chunk", "chunk_id"),
    Index("batches_account", "account", "ended_at"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("chunk_id", String(40), primary_key=True),
    Column("outcome", String(16), primary_key=True),
    Column("run_id", String(40), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger),
    # how many rows of this chunk had this outcome in an earlier round
    Column("retried", BigInteger, nullable=False, default=0, server_default="0"),
    Column("cache_write_tokens", BigInteger, nullable=False, default=0, server_default="0"),
    Column("list_cost", BigInteger),  # what the same requests cost outside of batches
    Index("outcomes_run", "run_id"),
)

# money: reserved before a create, settled from usage; it belongs to the run that reserved it
reservations = Table(
    "reservations",
    metadata,
    Column("chunk_id", String(40), primary_key=True),
    Column("run_id", String(40), nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("settled", BigInteger),  # null while in flight
    Column("superseded", BigInteger),  # cost of the rows it replaced in the dataset, once landed
    Column("overhead", BigInteger),  # paid, but for no row (unknown lines)
    Column("reserved_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("budget", String(200)),  # the shared budget that it counts against
    Column("period", BigInteger),  # when the budget's period began
    Index("reservations_run", "run_id"),
    Index("reservations_budget", "budget", "period"),
)

# limits that several specs share; all who share one ledger share them
budgets = Table(
    "budgets",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("limit_amount", BigInteger, nullable=False),
    Column("period", String(8), nullable=False),  # day, week, month, total
    Column("timezone", Text, nullable=False),
    # JSON: the terms that each spec gave last (see agreement.py)
    Column("said", Text, nullable=False),
    # JSON: the terms that specs agreed on last; more than one if a limit was set by hand since:
    # those that it overruled, and its own
    Column("agreed", Text),
    Column("changed_at", BigInteger, nullable=False),
)

# by how much the bounds of a model turned out to be too low, in millionths
corrections = Table(
    "corrections",
    metadata,
    Column("provider", String(32), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("factor", BigInteger, nullable=False),
    Column("chunk_id", String(40), nullable=False),  # whose answer showed it
    Column("noted_at", BigInteger, nullable=False),
)

# the response models by which all kept answers of a dataset were read anew
rereads = Table(
    "rereads",
    metadata,
    Column("dataset_id", String(40), primary_key=True),
    Column("part", String(24), primary_key=True),  # its part of fingerprints
    Column("noted_at", BigInteger, nullable=False),
)

# rows that a person wanted to be forgotten, or that were deleted as they left the source, by the
# names of their requests; no text of them
forgotten = Table(
    "forgotten",
    metadata,
    Column("custom_id", String(64), primary_key=True),
    Column("chunk_id", String(40), nullable=False),
    Index("forgotten_chunk", "chunk_id"),
)

# places of chunks in the queues of accounts: those that wait for room, and those that were let in,
# which count until their batches have ended (see queues.py)
queue_places = Table(
    "queue_places",
    metadata,
    Column("chunk_id", String(40), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("model", String(200), nullable=False),  # "" if all models of the account share a queue
    Column("amount", BigInteger, nullable=False),  # tokens or requests that it takes up
    Column("too_little", BigInteger),  # room in which the provider had none for it
    Column("stated", BigInteger),  # the most that the queue holds by the settings of who asks
    Column("since", BigInteger, nullable=False),  # who has waited longest goes first
    Column("fence", BigInteger, nullable=False),  # of the lease of who asks
    Column("let_in_at", BigInteger),  # null while it waits
    Column("kept_until", BigInteger),  # it keeps its place until then without a process that waits
    Index("queue_places_queue", "account", "model"),
)

# the most that queues of accounts hold, as providers told when they were full
queue_limits = Table(
    "queue_limits",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("told_at", BigInteger, nullable=False),
    Column("probe", String(40)),  # the chunk that was let in beyond it, to see whether it holds
)

# when work that comes again and again was done last
passes = Table(
    "passes",
    metadata,
    Column("work", String(40), primary_key=True),  # WATCHING
    Column("ended_at", BigInteger, nullable=False),
)

# what `watch` did for runs, and Prefect's server has not been told yet
untold = Table(
    "untold",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("facts", Text, nullable=False),  # as JSON
)

# until when nobody looks at batches of an account, since its provider asked for that
pauses = Table(
    "pauses",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("until", BigInteger, nullable=False),
)
