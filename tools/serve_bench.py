#!/usr/bin/env python3
"""Compares servers under the same load, in turns: tokens per second of all clients, and times to the first token.

    tools/serve_bench.py walsh=http://127.0.0.1:8080 llama=http://127.0.0.1:8081 --clients 1,4,8,16

Each client sends prompts of about --prompt tokens to /v1/completions and reads the answers as they come. Prompts share
their first --shared tokens. Nothing but Python's own library is needed. Of several rounds the best is taken.
"""

import argparse
import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse

WORDS = (
    "ship light storm keeper harbour rope lamp stone window letter night bread wheel bird river garden table road "
    "winter glass salt paper candle tower cloud field horse market song bridge"
).split()


def text(count, seed):
    """About as many tokens as words: all of these are one."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(count))


def ask(url, prompt, tokens):
    """The time to the first token, and how many came."""
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True,
            "stream_options": {"include_usage": True}, "cache_prompt": True}
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{url.geturl()}: {answer.status} {answer.read()!r}")
    first, usage = None, None
    for line in answer:
        if line.startswith(b"data: {"):
            if first is None:
                first = time.perf_counter() - start
            if b'"usage":{' in line:
                usage = json.loads(line[6:])["usage"]
    connection.close()
    return first, usage["completion_tokens"]


def load(url, clients, options, round_number):
    """All clients at once: tokens per second, and the times to first tokens."""
    shared = text(options.shared, 1)
    firsts, counts, lock = [], [], threading.Lock()

    def client(number):
        for turn in range(options.turns):
            seed = (round_number, clients, number, turn)
            prompt = f"{shared} {text(options.prompt - options.shared, str(seed))}"
            first, count = ask(url, prompt, options.generate)
            with lock:
                firsts.append(first)
                counts.append(count)

    start = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    return sum(counts) / seconds, firsts


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=URL")
    parser.add_argument("--clients", default="1,4,8,16")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--shared", type=int, default=256)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3, help="requests of each client, one after the other")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    servers = {}
    for server in options.servers:
        name, url = server.split("=", 1)
        servers[name] = urllib.parse.urlparse(url)
    print(f"prompts of {options.prompt}, {options.shared} of them shared; {options.generate} tokens each; "
          f"{options.turns} requests a client; the best of {options.rounds} rounds in turns")
    print(f"{'clients':>8} {'server':>12} {'tokens/s':>10} {'first p50':>10} {'first p95':>10}")
    for clients in map(int, options.clients.split(",")):
        rates = {name: [] for name in servers}
        firsts = {name: [] for name in servers}
        for number in range(options.rounds):
            for name, url in servers.items():
                rate, times = load(url, clients, options, number)
                rates[name].append(rate)
                firsts[name].append(times)
        for name in servers:
            p50 = min(statistics.median(times) for times in firsts[name])
            p95 = min(percentile(times, 0.95) for times in firsts[name])
            print(f"{clients:>8} {name:>12} {max(rates[name]):>10.1f} {p50 * 1e3:>8.0f}ms {p95 * 1e3:>8.0f}ms", flush=True)


if __name__ == "__main__":
    main()
