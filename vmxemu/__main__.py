"""`python -m vmxemu` is the command `vmxemu`."""

import sys

from vmxemu.cli import main

sys.exit(main())
