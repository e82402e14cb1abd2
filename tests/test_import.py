"""The extension module can be imported more than once, as sandboxes and reloading tools do."""

import subprocess
import sys

PROGRAM = """
import asyncio, sys
import aioxide

first = aioxide._aioxide
loop = aioxide.new_event_loop()
for name in [name for name in sys.modules if name.partition(".")[0] == "aioxide"]:
    del sys.modules[name]

import aioxide as again

names = {name for name in vars(first) if not name.startswith("__")}
assert names == {name for name in vars(again._aioxide) if not name.startswith("__")}
assert all(getattr(again._aioxide, name) is getattr(first, name) for name in names)
assert again.__version__ == aioxide.__version__
assert again._aioxide.__spec__.name == "aioxide._aioxide"
assert again.Task is first.Task

async def main():
    async with aioxide.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, 1))
    assert isinstance(task, asyncio.Task)
    return await task

assert loop.run_until_complete(main()) == 1
loop.close()
assert again.run(main()) == 1
"""


def test_second_import_gives_the_same_objects():
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stderr) == (0, "")
