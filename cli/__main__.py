"""`python -m bagindex_cli`."""

from bagindex_cli.app import main

main()
