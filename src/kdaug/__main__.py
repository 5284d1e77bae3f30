"""python -m kdaug"""

from kdaug.cli.main import entry

entry()
