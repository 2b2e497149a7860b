"""Tests of zimage serve by slowhttptest, which holds many slow connections: check_slow.py PROGRAM [TEST...]

The attack comes from 127.0.0.1 with more connections than one address may have. Another address, 127.0.0.2, is served
as before, and the process takes little memory.
"""
import http.client
import subprocess
import sys
import time

from harness import SMALL, Server, best_of, run_tests, status_of

CONNECTIONS, PER_ADDRESS, SECONDS = 1000, 256, 6
CONNECTION_KIB = 32  # of memory, and some for the process
PROCESS_KIB = 8192
AVAILABLE = 2  # seconds in which /health answers


class Elsewhere(Server):
    """The test's own requests come from another address."""

    patience = 10

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience,
                                          source_address=("127.0.0.2", 0))


def attack(program, name, path, *options):
    """The service stays available: on a busy machine in one of three attacks."""
    slowest = best_of(3, lambda: attack_once(program, name, path, *options), AVAILABLE)
    assert slowest < AVAILABLE, f"the service was not available: /health took {slowest:.1f} s"


def attack_once(program, name, path, *options):
    """Returns the seconds of the slowest answer of /health."""
    with Elsewhere(program, "--quiet", "--header-seconds", "3", "--body-seconds", "3") as s:
        s.json("POST", "/v1/images/generations", SMALL)
        before, times, most, connections = status_of(s), [], 0, 0
        attacker = subprocess.Popen(
            ["slowhttptest", *options, "-u", s.url + path, "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l",
             str(SECONDS), "-p", "2"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            start = time.monotonic()
            assert s.get("/health").status == 200
            times.append(time.monotonic() - start)
            most = max(most, status_of(s)[1])
            connections = max(connections, s.metric("zimage_connections"))
            time.sleep(0.02)
        s.json("POST", "/v1/images/generations", SMALL)
        report = attacker.communicate(timeout=60)[0].decode(errors="replace")
        assert connections > PER_ADDRESS / 2, f"there was no attack: {report[-2000:]}"
        s.wait_for("no connections", lambda: s.metric("zimage_connections") <= 1)
        s.wait_for("no files", lambda: status_of(s)[0] <= before[0] + 1)
        times.sort()
        print(f"      {name}: {connections:.0f} connections at most; /health: {len(times)} times, median "
              f"{times[len(times) // 2] * 1000:.1f} ms, most {times[-1] * 1000:.1f} ms; "
              f"{(most - before[1]) / 1024:.1f} MiB more")
        assert most - before[1] <= PROCESS_KIB + CONNECTION_KIB * PER_ADDRESS
        return times[-1]


def test_slow_headers(program):
    attack(program, "slow headers", "/v1/models", "-H", "-i", "1", "-t", "GET")


def test_slow_bodies(program):
    attack(program, "slow bodies", "/v1/images/generations", "-B", "-i", "1", "-s", "8192", "-f",
           "application/json")


def test_slow_reading(program):
    attack(program, "slow reading", "/openapi.json", "-X", "-w", "1", "-y", "64", "-n", "1", "-z", "5", "-k", "3")


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
