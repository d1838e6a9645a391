#!/usr/bin/env python3
"""Lets many clients use a server of Walsh's for long, some of which vanish, and looks at what is left.

    tools/serve_soak.py --walsh target/release/walsh --clients 64 --seconds 600 -- --model smollm2-135m --kv 4bit

Starts `walsh serve --deterministic` with what follows `--`. First each kind of request is answered alone; then all clients
ask at once: a third of the requests vanish at a random moment, the others' answers must be what they were alone. A client of
its own sends prompts of --long tokens all the time. At the end nothing may run, wait or hold a page, and resident memory is
compared with what it was after --settle seconds. Nothing but Python's own library is needed.
"""

import argparse
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time

WORDS = "ship light storm keeper harbour rope lamp stone window letter night bread wheel bird river".split()


def text(count, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(count))


class Server:
    def __init__(self, walsh, arguments):
        command = [walsh, "serve", "--port", "0", "--deterministic", "--log", "off", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("listening on http://"):
                host, port = line.removeprefix("listening on http://").strip().rsplit(":", 1)
                self.address = (host, int(port))
                break
        else:
            raise SystemExit("".join(self.said))
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def get(self, path):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def figure(self, name):
        return float(re.search(rf"^walsh_{name}{{.*}} (.*)$", self.get("/metrics"), re.M).group(1))

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024


def body(kind):
    draw = random.Random(f"kind {kind}")
    return {"prompt": text(draw.choice([3, 20, 60, 200, 400]), kind), "max_tokens": draw.choice([4, 16, 40]),
            "temperature": draw.choice([0, 1]), "seed": kind, "ignore_eos": True}


def answer(server, asked):
    connection = http.client.HTTPConnection(*server.address, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
    response = connection.getresponse()
    read = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {read}")
    return read["choices"][0]["text"]


def vanish(server, asked, draw):
    """Sends a request, reads a little of the answer at most, and is gone."""
    asked = dict(asked, stream=draw.random() < 0.5, max_tokens=200)
    data = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(head.encode() + data[: draw.randrange(1, len(data) + 1) if draw.random() < 0.2 else None])
        if draw.random() < 0.5:
            time.sleep(draw.random() * 0.3)
        else:
            connection.settimeout(0.3)
            try:
                connection.recv(1 + draw.randrange(2000))
            except TimeoutError:
                pass


def gaps(server, asked):
    """The times between the pieces of a streamed answer, the first excepted."""
    connection = http.client.HTTPConnection(*server.address, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(dict(asked, stream=True)), {"Content-Type": "application/json"})
    response, times = connection.getresponse(), []
    for line in response:
        if line.startswith(b"data: {"):
            times.append(time.perf_counter())
    connection.close()
    return [later - earlier for earlier, later in zip(times, times[1:])]


def main():
    own = sys.argv[1:]
    rest = []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walsh", default="target/release/walsh")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--settle", type=float, default=60)
    parser.add_argument("--kinds", type=int, default=60)
    parser.add_argument("--long", type=int, default=7500, help="tokens of the long prompts; 0 for none")
    options = parser.parse_args(own)
    server = Server(options.walsh, rest)
    kinds = [body(kind) for kind in range(options.kinds)]
    alone = [answer(server, asked) for asked in kinds]
    counts, lock, problems, waits = {"answered": 0, "vanished": 0, "long": 0}, threading.Lock(), [], []
    end = time.monotonic() + options.seconds

    def count(what):
        with lock:
            counts[what] += 1

    def client(number):
        draw = random.Random(f"client {number}")
        while time.monotonic() < end and not problems:
            kind = draw.randrange(options.kinds)
            try:
                if draw.random() < 1 / 3:
                    vanish(server, kinds[kind], draw)
                    count("vanished")
                elif answer(server, kinds[kind]) == alone[kind]:
                    count("answered")
                else:
                    problems.append(f"the answer to kind {kind} is another than alone")
            except Exception as problem:
                problems.append(f"client {number}: {problem!r}")

    def reader():
        draw = random.Random("reader")
        while time.monotonic() < end and not problems:
            waits.extend(gaps(server, dict(kinds[draw.randrange(options.kinds)], max_tokens=60)))

    def long():
        number = 0
        while time.monotonic() < end and not problems:
            number += 1
            try:
                answer(server, {"prompt": text(options.long, f"long {number}"), "max_tokens": 1})
                count("long")
            except Exception as problem:
                problems.append(f"long: {problem!r}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(options.clients)]
    threads.append(threading.Thread(target=reader))
    if options.long:
        threads.append(threading.Thread(target=long))
    for thread in threads:
        thread.start()
    time.sleep(min(options.settle, options.seconds / 2))
    before = server.resident()
    for thread in threads:
        thread.join()
    idle = ["requests_running", "requests_waiting", "kv_pages_used"]
    for _ in range(300):
        left = {name: server.figure(name) for name in idle}
        if not any(left.values()):
            break
        time.sleep(0.1)
    after = server.resident()
    waits.sort()
    report = {
        **counts, "problems": problems[:5], "left": left, "cancelled": server.figure("requests_cancelled_total"),
        "put_off": server.figure("put_off_total"), "resident_mb": [round(before / 1e6, 1), round(after / 1e6, 1)],
        "grown_percent": round(100 * (after - before) / before, 2),
        "gap_ms": {"p50": round(1e3 * waits[len(waits) // 2], 1), "p99": round(1e3 * waits[int(len(waits) * 0.99)], 1),
                   "max": round(1e3 * waits[-1], 1)} if waits else None,
    }
    server.process.terminate()
    report["status"] = server.process.wait(timeout=60)
    print(json.dumps(report, indent=1))
    if problems or any(left.values()) or report["status"] != 0:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
