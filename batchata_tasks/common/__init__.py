"""What every package may use: errors, settings, money, texts, files."""
