"""The entry point of `batchata`: little is imported before it can handle Ctrl-C."""

from __future__ import annotations

from batchata_tasks.cli.interrupts import leave_at_ctrl_c


def main() -> None:
    """Run the command line."""
    leave_at_ctrl_c()
    from batchata_tasks.cli.commands import app

    app()


if __name__ == "__main__":
    main()
