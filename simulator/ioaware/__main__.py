"""`python -m ioaware` is the script `ioaware`."""

from .cli import main

main()
