"""``python -m qhw`` is ``qhw``."""

from qhw.cli import main

main()
