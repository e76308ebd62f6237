"""Where rows come from: CSV, JSONL and Parquet files, and documents."""
