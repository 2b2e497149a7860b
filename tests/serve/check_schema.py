"""What schemathesis (a package of Python) makes of /openapi.json, sent to zimage serve: check_schema.py PROGRAM SECONDS

No answer is an error of the server, no request hangs, and the server works afterwards.
"""
import os
import re
import subprocess
import sys
import tempfile

from harness import SMALL, TINY, Server


def requests(server):
    """How many the server has counted."""
    return sum(int(n) for n in re.findall(r"^zimage_requests_total\{.*\} (\d+)$",
                                          server.get("/metrics").body.decode(), re.M))


def main():
    program, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    options = ["-m", TINY, "--max-pixels", "4096", "--max-steps", "2", "--max-n", "2", "--max-queue", "1000"]
    with Server(program, *options, "--max-wait", "100000") as s, tempfile.TemporaryDirectory() as folder:
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", f"{s.url}/openapi.json",
                   "--checks", "not_a_server_error", "--max-time", seconds, "--request-timeout", "60",
                   "--continue-on-failure", "--generation-deterministic", "--no-shrink", "--no-color",
                   # two threads that parse Python at once can fail: "AST constructor recursion depth mismatch" (3.11)
                   "--workers", "1"]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * float(seconds) + 120)
        summary = re.search(r"Tested: *(\d+)\n.*?Test cases:\n *(.*?)\n", answer.stdout, re.S)
        print(f"      schemathesis: {summary[1]} operations, {summary[2]}; {requests(s)} requests" if summary else "")
        if answer.returncode != 0:
            print(answer.stdout[-8000:], answer.stderr[-2000:])
        assert summary and answer.returncode == 0, f"schemathesis found faults: exit code {answer.returncode}"
        assert s.json("POST", "/v1/images/generations", SMALL)["data"]


main()
