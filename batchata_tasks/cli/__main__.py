"""`python -m batchata_tasks.cli`."""

from batchata_tasks.cli.main import main

if __name__ == "__main__":
    main()
