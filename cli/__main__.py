"""`python -m bagindex_cli`."""

from bagindex_cli import main

main()
