"""Errors, settings, money, texts and files, for every package."""
