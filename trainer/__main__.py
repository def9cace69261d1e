"""`python -m trainer`; holds nothing but the call of `cli.main`, and how the process ends after it."""

from __future__ import annotations

import contextlib
import os
import sys

from trainer.cli import main

if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):  # whoever read it may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    # gloo's threads outlive the process group: an interpreter that takes itself down under them may abort instead.
    os._exit(code)
