"""Python frames where tools look for asyncio's own, by the end of a file's name and the name of a function.

blockbuster lets `subprocess.Popen` block if it is called in ``subprocess_exec`` of ``asyncio/base_events.py``.
"""
