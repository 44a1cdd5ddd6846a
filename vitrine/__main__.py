"""`python -m vitrine COMMAND ...` is the same as `vitrine COMMAND ...`."""

from vitrine.cli import main

main()
