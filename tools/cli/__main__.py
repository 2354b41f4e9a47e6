"""`python -m l4lab.tools.cli`, which is how the launcher starts it."""

from l4lab.tools.cli.main import main

main()
