"""`python -m curator`."""

from curator.cli.app import main

main()
