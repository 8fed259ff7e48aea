"""Where this is on the path, palmswift's workers are children of the warm parent.

Python imports it before all else (`site`); see support_forks.py.
"""

import os
import sys

from support_forks import ADDRESS, WORKERS, ask

module = sys.orig_argv[2] if sys.orig_argv[1:2] == ["-m"] else ""
if module in WORKERS:
    os._exit(ask(os.environ[ADDRESS], module, sys.orig_argv[3:]))
