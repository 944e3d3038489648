"""`python -m core.cli`: the `engine` command where its script is not on the PATH."""

from . import main

main()
