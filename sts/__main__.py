"""`python -m sts` is the command `sts`."""

from sts.cli.main import main

main()
