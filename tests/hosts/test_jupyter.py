"""IPython's terminal and Jupyter's kernel."""

import queue

import pytest
from conftest import PATIENCE, PYTHON, environment

CHECK = "from running_on import check; check()"


def test_ipython(run, mode):
    code = f"import asyncio\nawait asyncio.sleep(0)\n{CHECK}\nprint('done', await asyncio.gather(asyncio.sleep(0, 1)))"
    assert "done [1]" in run(mode, "-m", "IPython", "--colors=nocolor", "-c", code, IPYTHONDIR=".")


#: What starts children: the shell's own way, a magic that has asyncio's child on a loop of its own, asyncio itself.
CHILDREN = """
lines = !echo shell
get_ipython().run_cell_magic("script", "--out script cat", "magic")
import asyncio
child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
print(lines, script.strip(), await child.communicate(b"asyncio"))
"""
CHILDREN_SAY = "['shell'] magic (b'asyncio', None)"


def test_ipython_children(run, mode):
    assert CHILDREN_SAY in run(mode, "-m", "IPython", "--colors=nocolor", "-c", CHILDREN, IPYTHONDIR=".")


EXTENSION = f"""
import asyncio, aioxide
await asyncio.sleep(0)
{CHECK}
called = asyncio.Event()
asyncio.get_running_loop().call_later(0.001, lambda: called.set() or print("later"))
await called.wait()
assert aioxide.status().level == "loop"
%unload_ext aioxide.contrib.ipython
assert aioxide.status().level == "none"
print("done", await asyncio.sleep(0, 1))
"""


def test_ipython_extension(run):
    arguments = ["-m", "IPython", "--colors=nocolor", "--ext=aioxide.contrib.ipython", "-c", EXTENSION]
    output = run("stdlib", *arguments, IPYTHONDIR=".", RUNNING_ON="loop")
    assert "later" in output
    assert "done 1" in output


def test_ipython_prompt(mode, tmp_path):
    """At a terminal, where prompt_toolkit has a loop of its own."""
    pexpect = pytest.importorskip("pexpect")
    command = [*PYTHON[mode], "-m", "IPython", "--no-banner", "--colors=nocolor", "--no-confirm-exit"]
    variables = environment(mode) | {"IPYTHONDIR": str(tmp_path), "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(command[0], command[1:], env=variables, cwd=tmp_path, encoding="utf-8", timeout=PATIENCE)
    try:
        child.expect(r"In .*1.*\]")
        child.sendline("import asyncio; from running_on import facts")
        child.expect(r"In .*2.*\]")
        child.sendline("(await asyncio.sleep(0.01, 'ab')) + str(facts()['loop'])")
        child.expect(f"ab{mode != 'stdlib'}")
        child.expect(r"In .*3.*\]")
        child.sendline("exit")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def kernel(mode):
    """A kernel as its `kernel.json` would have it started."""
    from jupyter_client import KernelManager
    from jupyter_client.kernelspec import KernelSpec

    manager = KernelManager()
    manager._kernel_spec = KernelSpec(
        argv=[*PYTHON[mode], "-m", "ipykernel_launcher", "-f", "{connection_file}"], interrupt_mode="signal"
    )
    return manager


def execute(client, code, stop=None):
    """What a cell prints, and how it ends."""
    printed = []
    request = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
            if stop is not None and "waiting" in content["text"]:
                stop()
        if message["msg_type"] == "error":
            printed.append(content["ename"])
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return "".join(printed)


@pytest.mark.filterwarnings("ignore")
def test_kernel(mode, tmp_path):
    manager = kernel(mode)
    manager.start_kernel(env=environment(mode) | {"IPYTHONDIR": str(tmp_path)}, cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        assert execute(client, f"import asyncio\n{CHECK}\nprint(await asyncio.sleep(0.01, 'ab'))") == "ab\n"
        code = "task = asyncio.create_task(asyncio.sleep(0.01, 'background'))"
        assert execute(client, code) == ""
        assert execute(client, "print(await task)") == "background\n"
        assert execute(client, "1 / 0") == "ZeroDivisionError"
        assert CHILDREN_SAY in execute(client, CHILDREN)
        if mode != "stdlib":
            # Cancelled in a handler that ipykernel has set by `signal.signal`: asyncio's loop sleeps on.
            code = "print('waiting')\nawait asyncio.sleep(600)"
            printed = execute(client, code, manager.interrupt_kernel)
            assert "waiting" in printed
            assert "Interrupt" in printed or "Cancelled" in printed, printed
        assert execute(client, "print(2 * 3)") == "6\n"
    except queue.Empty:
        pytest.fail("the kernel does not answer")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
