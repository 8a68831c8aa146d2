"""python -m tinyvae: the command line.
It knows nothing but where that is."""

import sys

from .app.cli import main

sys.exit(main())
