"""Programs that end while something goes on end at once, and well."""

from __future__ import annotations

import subprocess
import sys

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
