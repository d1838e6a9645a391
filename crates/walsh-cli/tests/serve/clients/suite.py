"""What all suites in Python share: a list of cases, checks that say what came, and a line for each case."""

import argparse
import sys
import time
import traceback

# No request takes as long: who waits longer waits for a server that hangs.
TIMEOUT = 60.0

TOPIC = "Write two sentences about lighthouses."


class Wrong(Exception):
    """What came is not what was to come."""


class Server:
    """Where the server is, what it is asked for, and, if one was given, where a server with a key is."""

    def __init__(self, arguments):
        self.url = arguments.url.rstrip("/")
        self.model = arguments.model
        self.keyed, self.key = arguments.keyed or (None, None)


class Cases(list):
    """A list of cases, to which `@cases` adds one; `@cases.keyed` one that needs a server with a key."""

    def __call__(self, case):
        self.append(case)
        return case

    def keyed(self, case):
        case.needs_key = True
        return self(case)


def check(truth, what, came=None):
    """Fails the case unless something is so."""
    if not truth:
        raise Wrong(what if came is None else f"{what}: {came!r}")


def same(came, expected, what):
    """Fails the case unless both are equal."""
    if came != expected:
        raise Wrong(f"{what}: expected {expected!r}, came {came!r}")


def refused(kind, call):
    """The error that a call ends with, which has to be exactly of a kind."""
    try:
        came = call()
    except Exception as error:
        check(type(error) is kind, f"expected {kind.__name__}, came {type(error).__name__}", str(error))
        return error
    raise Wrong(f"expected {kind.__name__}, came an answer: {came!r}")


def where(error):
    """The line of a case that an error came out of."""
    lines = [f"{line.filename.rsplit('/', 1)[-1]}:{line.lineno}" for line in traceback.extract_tb(error.__traceback__)]
    own = [line for line in lines if not line.startswith("suite.py") and line.split(":")[0] in OWN]
    return own[-1] if own else lines[-1]


OWN = set()


def main(name, cases):
    """Runs the cases in turn against the server that the arguments name, and ends the program."""
    parser = argparse.ArgumentParser(description=f"the suite of {name} against a running server")
    parser.add_argument("url", help="where the server is, without /v1")
    parser.add_argument("--model", default="smollm2-135m", help="the name of its model (default: %(default)s)")
    parser.add_argument("--keyed", nargs=2, metavar=("URL", "KEY"), help="a second server, which needs a key")
    parser.add_argument("--only", metavar="TEXT", help="only the cases whose names have this in them")
    arguments = parser.parse_args()
    server = Server(arguments)
    OWN.update(case.__code__.co_filename.rsplit("/", 1)[-1] for case in cases)
    ran = failed = 0
    for case in cases:
        title = f"{name}: {case.__name__}"
        if arguments.only and arguments.only not in case.__name__:
            continue
        if getattr(case, "needs_key", False) and not server.keyed:
            print(f"not run (no --keyed): {title}", flush=True)
            continue
        ran += 1
        began = time.monotonic()
        try:
            case(server)
        except Exception as error:
            failed += 1
            why = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
            print(f"FAILED {title}: {where(error)}: {' '.join(why.split())[:1500]}", flush=True)
        else:
            print(f"ok {title} ({time.monotonic() - began:.2f} s)", flush=True)
    if ran == 0:
        print(f"{name}: no case ran", file=sys.stderr)
    sys.exit(1 if failed or not ran else 0)
