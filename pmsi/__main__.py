"""`python -m pmsi`, and `torchrun -m pmsi` for several processes."""

import sys

from pmsi.cli import main

if __name__ == "__main__":
    sys.exit(main())
