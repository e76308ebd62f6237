-- The tables as the first release made them (metadata.create_all), and rows in each: what users have on disk.
CREATE TABLE batches (
    batch_id VARCHAR(128) NOT NULL,
    chunk_id VARCHAR(40) NOT NULL,
    provider VARCHAR(32) NOT NULL,
    account VARCHAR(64) NOT NULL,
    status VARCHAR(32) NOT NULL,
    requests_done BIGINT,
    submitted_at BIGINT NOT NULL,
    looked_at BIGINT,
    ended_at BIGINT,
    PRIMARY KEY (batch_id)
);
CREATE INDEX batches_chunk ON batches (chunk_id);
CREATE TABLE chunks (
    id VARCHAR(40) NOT NULL,
    run_id VARCHAR(40) NOT NULL,
    dataset_id VARCHAR(40) NOT NULL,
    round INTEGER NOT NULL,
    kind VARCHAR(8) NOT NULL,
    provider VARCHAR(32) NOT NULL,
    model TEXT NOT NULL,
    endpoint VARCHAR(32) NOT NULL,
    start BIGINT NOT NULL,
    stop BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    bound BIGINT,
    state VARCHAR(16) NOT NULL,
    batch_id TEXT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX chunks_dataset ON chunks (dataset_id, state);
CREATE INDEX chunks_run ON chunks (run_id, state);
CREATE TABLE datasets (
    id VARCHAR(40) NOT NULL,
    url TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    holder TEXT,
    lease_until BIGINT,
    PRIMARY KEY (id),
    UNIQUE (url)
);
CREATE TABLE intents (
    chunk_id VARCHAR(40) NOT NULL,
    account VARCHAR(64) NOT NULL,
    requests BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    sent_at BIGINT NOT NULL,
    input_file_id TEXT,
    PRIMARY KEY (chunk_id)
);
CREATE INDEX intents_account ON intents (account);
CREATE TABLE meta (
    ledger_id VARCHAR(40) NOT NULL,
    schema_version INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (ledger_id)
);
CREATE TABLE outcomes (
    chunk_id VARCHAR(40) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    run_id VARCHAR(40) NOT NULL,
    rows BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cost BIGINT,
    PRIMARY KEY (chunk_id, outcome)
);
CREATE INDEX outcomes_run ON outcomes (run_id);
CREATE TABLE reservations (
    chunk_id VARCHAR(40) NOT NULL,
    run_id VARCHAR(40) NOT NULL,
    reserved BIGINT NOT NULL,
    settled BIGINT,
    superseded BIGINT,
    overhead BIGINT,
    reserved_at BIGINT NOT NULL,
    settled_at BIGINT,
    PRIMARY KEY (chunk_id)
);
CREATE INDEX reservations_run ON reservations (run_id);
CREATE TABLE runs (
    id VARCHAR(40) NOT NULL,
    dataset_id VARCHAR(40) NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    spec_digest VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    result VARCHAR(32),
    error TEXT,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    refresh_before BIGINT,
    retry_failed INTEGER NOT NULL,
    cost_limit BIGINT,
    price_source TEXT,
    plan TEXT,
    PRIMARY KEY (id)
);
CREATE INDEX runs_dataset ON runs (dataset_id, state);

INSERT INTO meta VALUES ('1111111111111111111111111111111111111111', 1, 1790000000000000);
INSERT INTO datasets VALUES ('d1', 'file:///data', 1790000000000000, 3, NULL, NULL);
INSERT INTO datasets VALUES ('d2', 'file:///else', 1790000000000000, 1, 'process 1 on gone', 1790000000000001);
INSERT INTO runs VALUES ('r1', 'd1', 'topics', '{}', 'digest', 'closed', 'completed', NULL, 1790000000000010, 1790000000000020, NULL, 0, 5000000000000, 'genai-prices', '{"requests": 20}');
INSERT INTO runs VALUES ('r2', 'd1', 'topics', '{}', 'digest', 'open', NULL, NULL, 1790000000000030, NULL, NULL, 1, 5000000000000, 'genai-prices', '{"requests": 40}');
INSERT INTO chunks VALUES ('c1', 'r1', 'd1', 1, 'batch', 'anthropic', 'm', 'chat', 0, 10, 100, 50, 'landed', 'b1', 1790000000000015);
INSERT INTO chunks VALUES ('c2', 'r1', 'd1', 1, 'batch', 'anthropic', 'm', 'chat', 10, 20, 100, 50, 'dropped', NULL, 1790000000000015);
INSERT INTO chunks VALUES ('c3', 'r2', 'd1', 1, 'batch', 'anthropic', 'm', 'chat', 0, 10, 100, 50, 'submitted', 'b3', 1790000000000035);
INSERT INTO chunks VALUES ('c4', 'r2', 'd1', 1, 'batch', 'anthropic', 'm', 'chat', 10, 20, 100, 50, 'unclear', NULL, 1790000000000035);
INSERT INTO chunks VALUES ('c5', 'r2', 'd1', 1, 'batch', 'anthropic', 'm', 'chat', 20, 40, 200, 100, 'planned', NULL, 1790000000000035);
INSERT INTO intents VALUES ('c1', 'account', 10, 2, 1790000000000012, NULL);
INSERT INTO intents VALUES ('c3', 'account', 10, 3, 1790000000000032, 'file-3');
INSERT INTO intents VALUES ('c4', 'account', 10, 3, 1790000000000033, 'file-4');
INSERT INTO batches VALUES ('b1', 'c1', 'anthropic', 'account', 'ended', 10, 1790000000000013, 1790000000000014, 1790000000000014);
INSERT INTO batches VALUES ('b3', 'c3', 'anthropic', 'account', 'in_progress', NULL, 1790000000000034, NULL, NULL);
INSERT INTO outcomes VALUES ('c1', 'succeeded', 'r1', 9, 90, 9, 3, 40);
INSERT INTO outcomes VALUES ('c1', 'expired', 'r1', 1, 0, 0, 0, NULL);
INSERT INTO reservations VALUES ('c1', 'r1', 50, 40, 0, 0, 1790000000000011, 1790000000000015);
INSERT INTO reservations VALUES ('c3', 'r2', 50, NULL, NULL, NULL, 1790000000000031, NULL);
INSERT INTO reservations VALUES ('c4', 'r2', 50, NULL, NULL, NULL, 1790000000000031, NULL);
