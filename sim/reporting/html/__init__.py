"""The HTML report of a results folder: one page with charts, tables and text, and nothing to download."""

import os
import tempfile

from sim.core.files import has_home

if not has_home():
    os.environ["HOME"] = tempfile.gettempdir()  # altair asks for a home folder when it is imported
