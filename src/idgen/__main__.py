"""`python -m idgen` is the `idgen` command."""

from .cli import main

main()
