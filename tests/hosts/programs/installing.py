"""The application of `asgi.py`, which installs aioxide itself when it is imported."""

import os

import aioxide

if os.environ["RUNNING_ON"] != "stdlib":
    aioxide.install(os.environ["RUNNING_ON"])

from asgi import app  # noqa: F401
