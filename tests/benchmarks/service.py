"""Requests a second and their times, of a server in a process of its own, over loopback.

    python tests/benchmarks/service.py INDEX [--seconds 5] [--memory 20000]

The client is an asyncio one over keep-alive connections, in this process, so that both share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bagindex import Index
from common import machine

API = "/api/v1"


@dataclass
class Load:
    """What came back."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """A line for people."""
        times = sorted(self.times) or [0.0]
        p50, p99 = (1000 * times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.99))
        counted = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.statuses.items()))
        return f"{len(self.times) / self.seconds:8.0f} requests/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {counted}"


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> str:
    """Ask once; the status."""
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return lines[0].split(" ")[1]


async def connection(port: int, requests: Sequence[bytes], first: int, until: float, most: int, load: Load) -> None:
    """One connection that asks again and again."""
    asked = 0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        load.statuses[type(error).__name__] += 1
        return
    try:
        while time.perf_counter() < until and asked < most:
            began = time.perf_counter()
            status = await one(reader, writer, requests[(first + 7 * asked) % len(requests)])
            load.times.append(time.perf_counter() - began)
            load.statuses[status] += 1
            asked += 1
    except (OSError, asyncio.IncompleteReadError) as error:
        load.statuses[type(error).__name__] += 1
    finally:
        writer.close()


async def measure(port: int, requests: Sequence[bytes], connections: int, seconds: float, most: int = 2**31) -> Load:
    """Load the server with so many connections."""
    load = Load()
    began = time.perf_counter()
    tasks = (connection(port, requests, 31 * i, began + seconds, most, load) for i in range(connections))
    await asyncio.gather(*tasks)
    load.seconds = time.perf_counter() - began
    return load


def memory(process: int) -> float:
    """Resident megabytes of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--memory", type=int, default=20_000, help="requests over which memory is watched")
    options = parser.parse_args()
    print(json.dumps(machine()))
    with Index.open(options.index) as index:
        classes = [each.class_id for each in index.classes]
        patches = [
            row["patch_id"] for each in classes for row in index.top_patches(each, any_class=True, k=50).to_dicts()
        ]
    command = [sys.executable, "-m", "bagindex_cli", "serve", "-i", options.index, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        print(line.strip())
        port = int(line.rstrip("/\n").rpartition(":")[2])
        sql = json.dumps({"sql": "SELECT label_name, count(*) AS images FROM images GROUP BY 1"}).encode()
        kinds = {
            "top-patches, JSON": [request("GET", f"{API}/top-patches?class={each}&k=7") for each in classes],
            "a patch's PNG": [request("GET", f"{API}/patches/{each}.png") for each in patches],
            "SQL": [request("POST", f"{API}/sql", sql)],
        }
        for name, requests in kinds.items():
            warm = asyncio.run(measure(port, requests, 4, 60, len(requests)))
            if set(warm.statuses) != {"200"}:
                print(f"{name}: {dict(warm.statuses)}")
                continue
            for connections in (1, 16, 64, 1000):
                load = asyncio.run(measure(port, requests, connections, options.seconds))
                print(f"{name:20} {connections:5} connections {load}")
        both = list(kinds.values())[:2]
        mixed = [requests[i % len(requests)] for i in range(max(map(len, both))) for requests in both]
        for done in range(0, options.memory + 1, max(1, options.memory // 5)):
            print(f"memory after {done:7,} requests: {memory(server.pid):.0f} MB")
            if done < options.memory:
                asyncio.run(measure(port, mixed, 16, 600, max(1, options.memory // 5 // 16)))
    finally:
        server.terminate()
        print(f"the server ended with {server.wait(60)}")


if __name__ == "__main__":
    main()
