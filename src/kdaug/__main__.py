"""Runs the command line: python -m kdaug."""

from kdaug.cli.main import entry

entry()
