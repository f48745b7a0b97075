"""python -m layer45"""

import sys

from layer45.cli import main

sys.exit(main())
