#!/usr/bin/env python3
"""Types at the command for Windows, in Wine's console: tools/windows_console.py WINE WALSH.EXE MODEL TEMPLATE.

A conversation is typed, edited and ended, and a server is ended by Ctrl-C. Fails where what should be printed is not, within
a minute.
"""

from __future__ import annotations

import os
import pty
import select
import sys
import time


class Console:
    def __init__(self, words: list[str]) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(words[0], words)
        self.printed = b""

    def read(self, end: float) -> bytes:
        """What is printed next: nothing where there is no more, or the time is over."""
        ready, _, _ = select.select([self.file], [], [], max(end - time.monotonic(), 0))
        try:
            return os.read(self.file, 1 << 16) if ready else b""
        except OSError:
            return b""

    def expect(self, text: str) -> None:
        """Waits until the text is printed behind all that was waited for before."""
        end = time.monotonic() + 60
        while text.encode() not in self.printed:
            more = self.read(end)
            if not more:
                sys.exit(f"{text!r} is not in {self.printed!r}")
            self.printed += more
        self.printed = self.printed.split(text.encode(), 1)[1]

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def end(self) -> None:
        """Waits until the program has ended, and finds its status good."""
        end = time.monotonic() + 60
        while self.read(end):
            pass
        pid, status = os.waitpid(self.pid, os.WNOHANG if time.monotonic() > end else 0)
        if (pid, status) != (self.pid, 0):
            sys.exit(f"ended with {status}, or not at all")


# What the editor prints when it begins to read.
READING = "\x1b[?2004h"


def main(wine: str, walsh: str, model: str, template: str) -> None:
    chat = Console([wine, walsh, "chat", "--model", model, "--template", template])
    chat.expect("lists the commands")
    chat.expect(READING)
    # The last letter is taken back, and with it the command is one.
    chat.type("/showw\x7f\r")
    chat.expect("context")
    chat.expect(READING)
    chat.type("\x03")
    chat.expect("press Ctrl-C again")
    chat.expect(READING)
    chat.type("\x04")
    chat.end()
    server = Console([wine, walsh, "serve", "--model", model, "--port", "0"])
    server.expect("listening on")
    server.type("\x03")
    server.expect("ending when")
    server.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
