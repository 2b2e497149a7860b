#!/usr/bin/env python3
"""How long a newcomer waits for an image in the browser: tests/serve/newcomer.py ROOT [PICTURE.png]

ROOT is a root folder of a fresh Debian (docs/newcomer.md) with this project's source in /root/zimage. As root this runs
`./run.sh serve --port 8429` in it, opens the page in this system's Chromium as soon as the server says that it is
there, types a prompt and waits for the image. PICTURE.png: a screenshot of that moment. Prints seconds."""
import os
import subprocess
import sys
import time

from check_page import Page, By, Keys

PORT = 8429


class Remote:
    """What Page needs to know of a server."""
    url = f"http://127.0.0.1:{PORT}"

    @staticmethod
    def wait_for(what, condition, seconds):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"no {what} in {seconds} s"
            time.sleep(0.02)


def main():
    begin = time.monotonic()

    def tell(what):
        print(f"{time.monotonic() - begin:6.1f} s  {what}", flush=True)

    command = ["chroot", sys.argv[1], "sh", "-c", f"cd /root/zimage && exec ./run.sh serve --port {PORT}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"})
    try:
        for line in process.stdout:
            tell(line.strip())
            if Remote.url in line:
                break
        else:
            sys.exit("run.sh has ended")
        with Page(Remote) as page:
            tell("the page is there")
            page.driver.find_element(By.ID, "prompt").send_keys("a red apple" + Keys.CONTROL + Keys.ENTER)
            page.wait_until_done(1)
            page.wait("the image", "document.getElementById('over').naturalWidth === 256")
            tell("the image is there")
            if len(sys.argv) > 2:
                page.driver.save_screenshot(os.path.abspath(sys.argv[2]))
    finally:
        process.terminate()
        tell(f"the server ends with {process.wait()}")


main()
