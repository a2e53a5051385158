"""What LaVague has to be told before anything imports it."""

from __future__ import annotations

import os

os.environ["LAVAGUE_TELEMETRY"] = "NONE"  # it would send every prompt to its makers
