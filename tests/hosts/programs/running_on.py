"""Tells what a program runs on, in its own words."""

import asyncio
import os

import aioxide


def facts():
    """What the running task or callback sees."""
    task = asyncio.current_task()
    return {
        "loop": isinstance(asyncio.get_running_loop(), aioxide.Loop),
        "task": None if task is None else type(task) is aioxide.Task,
        "names": asyncio.Lock is aioxide.Lock and asyncio.gather is aioxide.gather,
        "pid": os.getpid(),
    }


async def released():
    """Waits for whoever started this program to say, by a pipe in the current folder, that a request may end."""

    def wait():
        with open("release", "rb", buffering=0) as pipe:
            pipe.read(1)

    if os.path.exists("release"):
        await asyncio.to_thread(wait)


def expected(mode):
    """What `facts` are to be in a mode.

    Of tasks nothing: a host may make one by calling `asyncio.Task`, as aiohttp does, which is the
    stdlib's class unless all names are native.
    """
    return {"loop": mode != "stdlib", "names": mode == "full"}


def check():
    """Fails if the program does not run on what it was meant to run on."""
    found = facts()
    mode = os.environ["RUNNING_ON"]
    assert expected(mode).items() <= found.items(), found
    assert found["task"] is not (mode != "full") or mode == "loop", found
