"""``python -m pipeline.cli``: the command without its entry point."""

from pipeline.cli import main

main()
