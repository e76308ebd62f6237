"""The first draft of a spec for a table, with the files that make it a project of its own."""
