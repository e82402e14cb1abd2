"""Makes every asyncio name native before anything else is imported.

This folder is put on PYTHONPATH, so that the test process and the interpreters
it starts in turn import this file at start-up. An interpreter started with -E
or -I does not, and stays on the stdlib.
"""

import os
import sys
import traceback

_level = os.environ.get("AIOXIDE_CONFORMANCE_LEVEL")
if _level:
    try:
        import aioxide

        aioxide.install(level=_level)
    except BaseException:
        # The site module would only mention it and go on, on the stdlib.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
