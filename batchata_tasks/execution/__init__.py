"""One run at work: what it holds, and the steps of a chunk from guard to land."""
