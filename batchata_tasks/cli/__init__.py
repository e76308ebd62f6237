"""The command `batchata`."""
