"""Programs that end while something goes on end at once, and well."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = "import os, sys, threading, time, walsh\nmodel = walsh.Model('smollm2-135m')\n"

PROGRAMS = {
    "a stream": "stream = model.generate('x', max_tokens=None, stream=True)\nnext(stream)",
    "a request": """
engine = walsh.Engine(model)
reply = engine.submit("x", max_tokens=None)
next(reply)
""",
    "a thread that reads": """
session = model.session(context=8192)
threading.Thread(target=lambda: session.read([1] * 8000), daemon=True).start()
time.sleep(0.2)
""",
    "a thread that writes": """
threading.Thread(target=lambda: model.generate("x", max_tokens=None), daemon=True).start()
time.sleep(0.2)
""",
    "a task": """
import asyncio

async def leave() -> None:
    global task
    task = asyncio.ensure_future(walsh.Engine(model).agenerate("x", max_tokens=None))
    await asyncio.sleep(0.2)

asyncio.run(leave())
""",
    "a forked process": """
import warnings

warnings.simplefilter("ignore")
engine = walsh.Engine(model)
reply = engine.submit("x", max_tokens=None)
next(reply)
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end(name: str) -> None:
    code = BEGIN + PROGRAMS[name] + "\nprint('end')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "end\n", "")


#: What a process says of itself as it goes on, step by step.
MEMORY = """
import sys, walsh

def told(step):
    print(step, flush=True)
    sys.stdin.readline()

walsh.Model("smollm2-135m", threads=2).close()
told("begun")
model = walsh.Model("smollm2-135m", threads=2)
model.generate("x", max_tokens=1)
told("opened")
session = model.session(kv="f16", context=2048)
session.read([1] * 2000)
told("read")
session.close()
told("left")
model.generate([1] * 2000, max_tokens=1)
told("spare")
model.close()
told("closed")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_what_is_closed_lets_its_memory_go() -> None:
    """Measured from outside: the resident memory of a process, in megabytes."""
    found: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, "-c", MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        for step in child.stdout:
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            found[step.strip()] = pages * resource.getpagesize() / 1e6
            child.stdin.write("\n")
            child.stdin.flush()
    assert child.returncode == 0
    # The file has 98 MB, and the caches of 2000 tokens 46.
    assert found["opened"] > found["begun"] + 80
    assert found["read"] > found["opened"] + 40
    assert found["left"] < found["opened"] + 20
    assert found["spare"] > found["left"] + 40
    assert found["closed"] < found["begun"] + 30
