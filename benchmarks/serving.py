"""`retina serve` under load, picture by picture and in batches: latency, throughput, lost requests.

    python benchmarks/serving.py DETECTOR IMAGES                      # 1,000 requests, 8 clients
    python benchmarks/serving.py DETECTOR IMAGES --requests 200 --clients 1 4 16

For each number of clients and each batch size it starts the service, on a free port of this
machine, and lets the clients ask for one picture after the other, each over one connection, until
all requests are made. A client that is answered asks again at once, so the number of clients is the
load. Before them, two requests for each client warm up and do not count.

Prints the median and the 99th percentile of the time from a request to the end of its answer, the
pictures per second, the mean size of a batch, the time on a core that a picture takes the service
(which other work on the machine hardly changes), and how many requests were lost: not answered with
200.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Load:
    """What a number of clients saw.

    Attributes:
        seconds: from each request that was answered to the end of its answer.
        num_lost: requests that were not answered with 200.
        wall: seconds from the first request to the last answer.
    """

    seconds: tuple[float, ...]
    num_lost: int
    wall: float

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share (in percent) was answered."""
        return 1000 * float(np.percentile(self.seconds, share))

    @property
    def per_second(self) -> float:
        """Pictures."""
        return len(self.seconds) / self.wall


def ask_all(port: int, pictures: Sequence[bytes], num_requests: int, num_clients: int) -> Load:
    """Ask for so many pictures, in turn, with so many clients at a time."""
    numbers = iter(range(num_requests))
    taking = threading.Lock()
    seconds: list[float] = []
    lost: list[int] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while True:
            with taking:
                number = next(numbers, None)
            if number is None:
                break
            started = time.perf_counter()
            try:
                picture = pictures[number % len(pictures)]
                headers = {"Content-Type": "application/octet-stream"}
                connection.request("POST", "/v1/detect", picture, headers)
                response = connection.getresponse()
                body = response.read()
            except OSError:
                connection.close()
                lost.append(number)
                continue
            if response.status == 200 and body.startswith(b'{"detections":'):
                seconds.append(time.perf_counter() - started)
            else:
                lost.append(number)
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(num_clients)]
    started = time.perf_counter()
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    wall = time.perf_counter() - started
    assert len(seconds) + len(lost) == num_requests
    return Load(tuple(seconds), len(lost), wall)


def counts_so_far(port: int) -> tuple[float, float, float]:
    """Pictures that have run, the batches that they ran in, and the seconds of the cores."""
    rows = (line.rpartition(" ") for line in get(port, "/metrics").splitlines())
    values = {name: value for name, _, value in rows}
    pictures, batches, cores = (float(values[name]) for name in _COUNTS)
    return pictures, batches, cores


_COUNTS = (
    "retina_batch_pictures_sum",
    "retina_batch_pictures_count",
    "process_cpu_seconds_total",
)


def get(port: int, path: str) -> str:
    """What the service answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@contextmanager
def serving(detector: Path, batch_size: int, options: Sequence[str]) -> Iterator[int]:
    """The service in a process of its own; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "retina", "serve", str(detector), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--batch-size", str(batch_size), *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert str(port) in line, "the service has not started"
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("detector", type=Path)
    parser.add_argument("images", type=Path, help="a folder of images of one size")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[8])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--pictures", type=int, default=50, help="different ones that are asked for"
    )
    parser.add_argument("--max-wait-ms", type=float, default=5.0)
    parser.add_argument("--precision", default="fp32")
    given = parser.parse_args()
    files = sorted(path for path in given.images.iterdir() if path.is_file())[: given.pictures]
    pictures = [path.read_bytes() for path in files]
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads, {given.precision}; "
        f"{len(pictures)} pictures of {sum(map(len, pictures)) / len(pictures) / 1000:.0f} kB"
    )
    print("| clients | batch size | p50 | p99 | pictures/s | mean batch | on a core | lost |")
    print("|---|---|---|---|---|---|---|---|")
    options = ("--max-wait-ms", str(given.max_wait_ms), "--precision", given.precision)
    for num_clients in given.clients:
        for batch_size in given.batch_sizes:
            with serving(given.detector, batch_size, options) as port:
                ask_all(port, pictures, 2 * num_clients, num_clients)
                before = counts_so_far(port)
                load = ask_all(port, pictures, given.requests, num_clients)
                after = counts_so_far(port)
            ran, batches, cores = (now - was for now, was in zip(after, before, strict=True))
            print(
                f"| {num_clients} | {batch_size} | {load.percentile(50):.0f} ms | "
                f"{load.percentile(99):.0f} ms | {load.per_second:.1f} | {ran / batches:.1f} | "
                f"{1000 * cores / ran:.0f} ms | "
                f"{load.num_lost} of {given.requests} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
