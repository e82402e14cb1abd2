"""Tells what a program runs on, in its own words."""

import asyncio
import os

import aioxide


def facts():
    """What the running task sees."""
    task = asyncio.current_task()
    return {
        "loop": isinstance(asyncio.get_running_loop(), aioxide.Loop),
        "task": type(task) is aioxide.Task,
        "names": asyncio.Lock is aioxide.Lock and asyncio.gather is aioxide.gather,
        "pid": os.getpid(),
    }


def expected(mode):
    """What `facts` are to be in a mode."""
    return {"loop": mode != "stdlib", "task": mode != "stdlib", "names": mode == "full"}


def check():
    """Fails if the program does not run on what it was meant to run on."""
    found = facts()
    wanted = expected(os.environ["RUNNING_ON"])
    assert {name: found[name] for name in wanted} == wanted, found
