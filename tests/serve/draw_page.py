"""Screenshots of the page: draw_page.py PROGRAM FOLDER writes page-SIZE-SCHEME.webp. docs/page.webp is one of them."""
import base64
import os
import sys

from check_page import Page
from harness import Server

PROMPTS = ("a whale on a light blue background", "a mushroom on a green background", "a panda, noto style",
           "a cat and a red apple", "a rocket on a blue background")
LOOKS = [(size, scheme) for size in ((1440, 900), (390, 844)) for scheme in ("light", "dark")]


def main(program, folder):
    with Server(program) as server, Page(server) as page:
        for number, prompt in enumerate(PROMPTS, 1):
            page.fill(prompt=prompt)
            page.click("make")
            page.wait_until_done(number)
        page.script("document.activeElement.blur()")
        for (width, height), scheme in LOOKS:
            page.look((width, height), scheme)
            page.driver.execute_async_script("setTimeout(arguments[0], 1000)")
            shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 80})
            with open(os.path.join(folder, f"page-{width}-{scheme}.webp"), "wb") as file:
                file.write(base64.b64decode(shot["data"]))


main(sys.argv[1], sys.argv[2])
