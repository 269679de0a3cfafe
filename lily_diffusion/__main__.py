"""``python -m lily_diffusion`` is the command lily-diffusion, as launchers of several processes call it."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
