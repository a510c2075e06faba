"""``python -m embstore``: the same as the command ``embstore``."""

import os
import sys

from embstore.cli import main

if __name__ == "__main__":
    # Python looks first in the folder where it was started; a folder ``trainers`` there must not hide the built-in ones.
    if not sys.flags.safe_path and (sys.path[0] == "" or sys.path[0] == os.getcwd()):
        sys.path.append(sys.path.pop(0))
    main(prog_name="embstore")
