"""The page of `zimage serve` in Chromium: makes images, stops, reads recipes, paints masks; and what it loads."""
import base64
import json
import os
import re
import shutil
import sys
import tempfile
import zlib

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from harness import SMALL, Server, long_requests, png_pixels, run_tests

LONGEST = long_requests(sys.argv[1])[1]
LONG_SIDE = int(LONGEST["size"].split("x")[0])
GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en",
         "--disable-background-networking", "--disable-component-update", "--no-first-run")

# Values that the page keeps in IndexedDB: the newest picture's file in base64.
NEWEST = """
const done = arguments[arguments.length - 1];
(async () => {
    const store = await import("/assets/store.js");
    const [picture] = await store.load();
    const bytes = new Uint8Array(await (await store.file(picture.id)).arrayBuffer());
    done(btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")));
})();
"""
# Drops a file on the page, as a mouse would.
DROP = """
const [text, name, type] = arguments, data = new DataTransfer();
data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
"""


class Page:
    """A browser with the page of a server. `with Page(server) as page:` checks what it loaded and said at the end."""

    def __init__(self, server, size=(1440, 900), scheme="light", expected=()):
        self.server, self.expected = server, expected
        options = webdriver.ChromeOptions()
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        self.script = self.driver.execute_script
        self.look(size, scheme)

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, kind, *unused):
        try:
            if kind is None:
                self.check_logs()
            else:
                print(self.script("return [...document.querySelectorAll('.error, .plan, .tokens')]"
                                  ".map((e) => e.textContent).join(' ')"))
                print(*(entry["message"] for entry in self.driver.get_log("browser")), sep="\n")
        finally:
            self.driver.quit()

    def open(self, path="/"):
        self.driver.get(self.server.url + path)
        if "invalid_api_key" not in self.expected:
            self.wait("the page", "document.documentElement.dataset.ready")

    def look(self, size, scheme):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 720})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def check_logs(self):
        """Nothing went to another origin, and the console has no warning that the test does not expect."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert url.startswith((self.server.url + "/", "data:", "blob:")), f"another origin: {url}"
        for entry in self.driver.get_log("browser"):
            is_known = any(text in entry["message"] for text in self.expected)
            assert entry["level"] not in ("WARNING", "SEVERE") or is_known, entry

    def wait(self, what, condition, seconds=60):
        self.server.wait_for(what, lambda: self.script(f"return {condition}"), seconds)

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def value(self, name):
        return self.script("return document.getElementById(arguments[0]).value", name)

    def text(self, name):
        return self.script("return document.getElementById(arguments[0]).textContent", name)

    def fill(self, **values):
        for name, value in values.items():
            self.script("const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                        "e.dispatchEvent(new Event('input', { bubbles: true }));", name, value)

    def click(self, name):
        self.script("document.getElementById(arguments[0]).click()", name)

    def wait_until_done(self, pictures):
        self.wait(f"{pictures} pictures", f"document.getElementById('strip').children.length === {pictures} && "
                  "document.getElementById('enqueue').hidden")

    def check_flaws(self, least):
        flaws = self.script(FLAWS, least)
        assert not flaws, "\n".join(flaws)

    def newest(self):
        return base64.b64decode(self.driver.execute_async_script(NEWEST))

    def drop(self, data, name="picture.png", kind="image/png"):
        self.script(DROP, base64.b64encode(data).decode(), name, kind)


def small_form(page, prompt="a red apple", steps=4, side=64, **more):
    page.fill(prompt=prompt, width=side, height=side, steps=steps, **more)


def made(server, **more):
    """An image of the server's, not made by the page."""
    answer = server.json("POST", "/v1/images/generations", {**SMALL, **more})
    return base64.b64decode(answer["data"][0]["b64_json"])


def with_text(png, key, text):
    """A PNG file with one more text, right behind its header."""
    begin, chunk = 8 + 12 + 13, b"tEXt" + key + b"\0" + text
    return (png[:begin] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") +
            png[begin:])


def test_making(program):
    with Server(program) as s, Page(s, expected=("status of 400",)) as page:
        page.script("window.said = []; window.seen = 0;"
                    "new MutationObserver(() => { said.push(document.getElementById('progress-text').textContent); })"
                    ".observe(document.getElementById('progress-text'), { childList: true });"
                    "new MutationObserver(() => { seen += document.getElementById('under').src.startsWith('data:'); })"
                    ".observe(document.getElementById('under'), { attributes: true });"
                    "window.toasted = '';"
                    "new MutationObserver(() => { toasted += document.getElementById('toasts').textContent; })"
                    ".observe(document.getElementById('toasts'), { childList: true });")
        page.click("make")
        assert page.text("error-prompt"), "no prompt, no sentence beside the field"
        small_form(page, steps=8, side=60)
        page.click("make")
        page.wait("the server's sentence", "document.getElementById('error-size').textContent.includes('multiples')")
        small_form(page, prompt="apple " * 600)
        page.wait("the count of tokens", "/^1208 tokens.* 512/.test(document.getElementById('tokens').textContent)")
        small_form(page, steps=8)
        page.wait("no count", "document.getElementById('tokens').textContent === ''")
        page.find("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
        page.wait_until_done(1)
        page.wait("the warning", "toasted.includes('64 x 64, but the model was trained at 20 other sizes')")
        said = page.script("return said")
        assert len(set(said)) >= 3 and any(re.match(r"Step \d of 8", text) for text in said), said
        assert page.script("return seen") > 0, "no preview"
        page.wait("the picture", "document.getElementById('over').naturalWidth === 64")
        s.wait_for("the picture to be shown", lambda: page.find("over").is_displayed())
        title = page.script("return document.title")
        assert title == "zimage", title
        wheel = ("document.getElementById('canvas').dispatchEvent(new WheelEvent('wheel',"
                 "{ deltaY: arguments[0], cancelable: true, clientX: 900, clientY: 300 }));"
                 "return document.getElementById('picture').style.transform")
        assert "scale(" in page.script(wheel, -400) and page.script(wheel, 800) == ""
        first = page.newest()
        recipe = json.loads(s.post("/zimage/v1/recipe", first).body)["request"]
        assert png_pixels(first) == png_pixels(made(s, seed=recipe["seed"], steps=8))
        assert str(recipe["seed"]) in page.text("caption-facts")
        page.click("do-other_seed")
        page.wait_until_done(2)
        page.find("stage").send_keys(Keys.ARROW_RIGHT)
        page.wait("the older picture", "document.querySelector('#strip > :last-child [aria-current=true]')")
        page.open()  # the gallery stays
        page.wait_until_done(2)
        page.find("stage").send_keys(Keys.ARROW_RIGHT)
        page.wait("a picture", "document.getElementById('do-delete')")
        page.click("do-delete")
        page.wait("one picture", "document.getElementById('strip').children.length === 1")
        page.script("document.querySelector('.toast button').click()")
        page.wait_until_done(2)


def test_stopping(program):
    with Server(program) as s, Page(s) as page:
        for stop in (lambda: page.click("make"), lambda: page.find("stage").send_keys(Keys.ESCAPE)):
            small_form(page, side=LONG_SIDE, steps=LONGEST["steps"])
            page.click("make")
            s.wait_for("a running job", lambda: s.json("GET", "/slots")[0]["state"] == "running")
            page.wait("progress", "document.getElementById('make').classList.contains('stopping')")
            stop()
            s.wait_until_idle()
            page.wait("the end", "document.getElementById('enqueue').hidden")
        assert s.json("GET", "/zimage/v1/jobs")["jobs"][0]["state"] == "cancelled"
        assert page.script("return document.getElementById('strip').children.length") == 0


def test_recipe_of_a_dropped_picture(program):
    with Server(program) as s, Page(s, expected=("/zimage/v1/recipe - Failed to load resource",)) as page:
        picture = made(s, prompt="a whale", seed=str(2**64 - 7), size="64x96", steps=3)
        page.drop(picture)
        page.wait("the recipe", "document.getElementById('recipe').open")
        assert "a whale" in page.text("recipe-facts") and str(2**64 - 7) in page.text("recipe-facts")
        page.click("recipe-use")
        assert [page.value(name) for name in ("prompt", "width", "height", "seed", "steps")] == [
            "a whale", "64", "96", str(2**64 - 7), "3"]
        page.click("make")
        page.wait_until_done(1)
        assert png_pixels(page.newest()) == png_pixels(picture)
        for kind, differs in (("png", False), ("jpeg", True)):
            file = made(s, seed=5, output_format=kind)
            page.drop(file, f"picture.{kind}", f"image/{kind}")
            page.wait("the recipe", "document.getElementById('recipe').open")
            page.click("recipe-again")
            sentence = "pixels differ" if differs else "all pixels are equal"
            page.wait(sentence, f"document.getElementById('toasts').textContent.includes('{sentence}')")
        page.drop(b"text", "notes.txt", "text/plain")
        page.wait("a refusal", "document.getElementById('error').textContent.includes('notes.txt')")
        # A picture of another program, with the text that AUTOMATIC1111's has.
        text = b"a cat, big\nSteps: 20, CFG scale: 7, Seed: 5, Size: 64x96"
        page.drop(with_text(made(s, embed_recipe=False), b"parameters", text))
        page.wait("the recipe", "document.getElementById('recipe-facts').textContent.includes('a cat, big')")
        assert "64x96" in page.text("recipe-facts") and "AUTOMATIC1111" in page.text("recipe-note")
        assert not page.script("return document.getElementById('recipe-again')")
        # One that other kernels made, as its recipe says: why the pixels differ.
        other = json.loads(s.post("/zimage/v1/recipe", made(s, seed=5)).body)["recipe"]
        page.click("recipe-use")
        page.drop(with_text(made(s, seed=6, embed_recipe=False), b"zimage",
                            json.dumps({**other, "kernels": "an abacus"}).encode()))
        page.wait("the recipe", "document.getElementById('recipe').open")
        page.click("recipe-again")
        page.wait("why", "document.getElementById('toasts').textContent.includes('with kernels an abacus, now ')")


def test_link(program):
    with Server(program) as s, Page(s) as page:
        for path, prompt in (("/#prompt=a+fox&size=96x64&steps=3&seed=9&other=1", "a fox"),
                             ("/?#prompt=%E7%8C%AB&size=96x64&steps=3&seed=9", "猫")):
            page.open(path)
            page.wait("the form", f"document.getElementById('prompt').value === '{prompt}'")
            assert [page.value(name) for name in ("width", "height", "steps", "seed")] == ["96", "64", "3", "9"]


def test_mask(program):
    """What is painted by the pointer is what is transparent in the request's mask, and only that."""
    with Server(program) as s, Page(s, expected=("/zimage/v1/recipe - Failed to load resource",)) as page:
        page.drop(made(s, size="128x64", embed_recipe=False, output_format="webp"), "a.webp", "image/webp")
        page.wait("the start picture", "document.getElementById('inputs').children.length === 1")
        assert [page.value("width"), page.value("height")] == ["128", "64"]
        page.click("paint")
        page.wait("the editor", "document.getElementById('mask').open")
        page.click("mask-done")
        page.wait("a refusal", "document.querySelector('.toast')")
        page.click("tool-rectangle")
        easel = page.find("easel")
        box = easel.size
        scale = box["width"] / 128
        ActionChains(page.driver).move_to_element(easel).click_and_hold().move_by_offset(
            int(24 * scale), int(16 * scale)).release().perform()
        easel.send_keys("i", "i")  # twice the opposite
        page.click("mask-done")
        page.wait("the mask", "document.querySelector('.input-mask')")
        assert not page.script("return document.getElementById('composite-label').hidden"), "composite with a mask"
        page.click("composite")
        page.script("""
            const send = window.fetch;
            window.fetch = (path, options) => {
                if (options?.body instanceof FormData)
                    [window.sent, window.kept] = ["mask", "composite"].map((name) => options.body.get(name));
                return send(path, options);
            };""")
        page.fill(prompt="a whale", strength=0.9, steps=4)
        page.click("make")
        page.wait_until_done(1)
        bounds = page.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            (async () => {
                const { pixelsOf } = await import("/assets/dom.js");
                const { data, width, height } = await pixelsOf(window.sent);
                let left = width, right = -1, top = height, bottom = -1, count = 0;
                for (let i = 0; i < width * height; i++) {
                    if (data[4 * i + 3] !== 0) continue;
                    const x = i % width, y = (i - x) / width;
                    [left, right] = [Math.min(left, x), Math.max(right, x)];
                    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
                    count++;
                }
                done({ left, right, top, bottom, count, width, height });
            })();""")
        assert (bounds["width"], bounds["height"]) == (128, 64), bounds
        for name, expected in (("left", 64), ("right", 87), ("top", 32), ("bottom", 47)):
            assert abs(bounds[name] - expected) <= 1, bounds
        area = (bounds["right"] - bounds["left"] + 1) * (bounds["bottom"] - bounds["top"] + 1)
        assert bounds["count"] == area, bounds
        assert s.json("GET", "/zimage/v1/jobs")["jobs"][0]["kind"] == "edit"
        assert page.script("return window.kept") == "true"
        page.click("do-compare")
        page.wait("the slider", "!document.getElementById('compare').hidden && document.getElementById('before').src")
        page.script("delete window.sent")
        page.click("do-other_seed")  # with the same pictures
        page.wait_until_done(2)
        assert page.script("return window.sent instanceof Blob")
        page.click("unmask")
        page.click("do-reuse")
        page.wait("the mask again", "document.querySelector('.input-mask')")
        page.fill(fit="pad", width=128, height=128)
        page.click("make")
        page.wait_until_done(3)
        margin = page.driver.execute_async_script("""
            const done = arguments[0];
            import("/assets/dom.js").then(({ pixelsOf }) => pixelsOf(window.sent)).then(({ data, height }) =>
                done([height, data[3], data[4 * (128 * 64) + 3]]));""")
        assert margin == [128, 0, 255], margin  # new margins are painted, the picture is kept


def check_models(s, page):
    for side in (48, 64, 80):
        page.drop(made(s, size=f"{side}x{side}", embed_recipe=False))
    page.wait("references", "document.getElementById('inputs').children.length === 3")
    assert page.text("image-legend") == "Reference pictures"
    assert page.script("return document.getElementById('start-options').hidden"), "no strength without a mask"
    page.fill(prompt="both", width=32, height=32, steps=2)
    page.click("make")
    page.wait("a sentence", "document.getElementById('error-image').textContent.includes('at least 64')")
    page.script("document.querySelector('#inputs > :first-child button').click()")
    page.script("document.querySelector('.forward').click()")
    page.fill(prompt="both", width=32, height=32, steps=2)
    page.script("""
        const send = window.fetch;
        window.fetch = (path, options) => {
            if (options?.body instanceof FormData) window.sent = options.body.getAll("image");
            return send(path, options);
        };""")
    page.click("make")
    page.wait_until_done(1)
    sides = page.driver.execute_async_script("""
        const done = arguments[0];
        Promise.all(window.sent.map((blob) => createImageBitmap(blob))).then((list) =>
            done(list.map((bitmap) => bitmap.width)));""")
    assert sides == [80, 64], f"the order of the references: {sides}"
    page.script("document.getElementById('more').open = true")
    page.fill(model="base")
    page.script("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.fill(prompt="a cat", width=32, height=32)
    page.click("make")  # opens the model, whose facts are known then
    page.wait_until_done(2)
    page.wait("guidance", "!document.getElementById('field-guidance').hidden")
    page.fill(guidance=3, negative_prompt="a dog", steps=2)
    page.click("make")
    page.wait_until_done(3)
    request = s.json("GET", "/zimage/v1/jobs")["jobs"][0]["request"]
    assert request["guidance"] == 3 and request["negative_prompt"] == "a dog", request


def test_models(program):
    """The form follows the model: references with klein, guidance and a negative prompt where it is not distilled."""
    expected = ("/zimage/v1/recipe - Failed to load resource", "status of 400")
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.join(folder, "base")
        shutil.copytree(os.path.join(GOLDEN, "tiny"), base)
        shutil.copytree(os.path.join(GOLDEN, "tiny-base"), base, dirs_exist_ok=True)
        with Server(program, "-m", f"klein={GOLDEN}/tiny-klein", "-m", base) as s, Page(s, expected=expected) as page:
            check_models(s, page)


def test_lost_server(program):
    """The page says that the server is gone, and goes on when it is there again."""
    with Server(program) as s, Page(s, expected=("ERR_INTERNET_DISCONNECTED",)) as page:
        offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.driver.execute_cdp_cmd("Network.enable", {})
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        small_form(page)
        page.click("make")
        page.wait("the banner", "!document.getElementById('banner').hidden")
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
        page.wait("no banner", "document.getElementById('banner').hidden")
        page.click("make")
        page.wait_until_done(1)


def test_gallery_of_the_server(program):
    """Pictures that others have made are shown, older ones on demand; a picture of the page is there once."""
    with tempfile.TemporaryDirectory() as folder, Server(program, "--gallery", folder) as s:
        for number in range(26):
            made(s, prompt=f"picture {number}", steps=1, seed=number)
        with Page(s) as page:
            page.wait("the strip", "document.getElementById('strip').children.length === 24")
            small_form(page, prompt="my own", steps=2)
            page.click("make")
            page.wait_until_done(25)
            page.click("open-gallery")
            page.wait("older ones", "!document.getElementById('older').hidden")
            page.click("older")
            page.wait("all", "document.querySelectorAll('#tiles .tile').length === 27")
            assert not page.find("older").is_displayed()
            page.script("document.querySelector('#tiles .tile:last-child .thumb').click()")
            page.wait("the oldest", "document.getElementById('over').naturalWidth === 64 && "
                      "document.getElementById('caption-prompt').textContent === 'picture 0'")
            assert "Seed 0" in page.text("caption-facts"), page.text("caption-facts")
            page.click("do-delete")
            page.wait_until_done(26)
            page.open()  # newest and own ones once; the deleted one stays in the bin
            page.wait("the strip", "document.getElementById('strip').children.length === 24")
            kept = len(s.json("GET", "/zimage/v1/gallery?limit=100")["images"])
            assert kept == 27, kept


def test_queue(program):
    """Three jobs, of which one is removed and one stopped; the page is loaded again meanwhile."""
    with Server(program) as s, Page(s) as page:
        small_form(page, prompt="a cat", side=LONG_SIDE, steps=LONGEST["steps"])
        page.click("make")
        for prompt in ("a dog", "a fox"):
            small_form(page, prompt=prompt, steps=2)
            page.wait("the job before", "!document.getElementById('enqueue').hidden")
            before = len(s.json("GET", "/zimage/v1/jobs")["jobs"])
            page.click("enqueue")
            s.wait_for("the job", lambda: len(s.json("GET", "/zimage/v1/jobs")["jobs"]) > before)
        page.wait("the list", "document.getElementById('queue').children.length === 3")
        page.open()
        page.wait("the list again", "document.getElementById('queue').children.length === 3")
        for child in (2, 1):
            page.script(f"document.querySelector('#queue > :nth-child({child}) > :last-child').click()")
        page.wait_until_done(1)
        states = {job["request"]["prompt"]: job["state"] for job in s.json("GET", "/zimage/v1/jobs")["jobs"]}
        assert states == {"a cat": "cancelled", "a dog": "cancelled", "a fox": "completed"}, states


def test_key(program):
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("secret\n")
        keys.flush()
        os.chmod(keys.name, 0o600)
        with Server(program, "--api-key-file", keys.name) as s, Page(
                s, expected=("invalid_api_key", "status of 401")) as page:
            for key, condition in (("wrong", "document.getElementById('error-key').textContent"),
                                   ("secret", "document.documentElement.dataset.ready")):
                page.wait("the question", "document.getElementById('key').open")
                page.find("key-input").send_keys(key, Keys.ENTER)
                page.wait(f"the answer to {key}", condition)
            small_form(page)
            page.click("make")
            page.wait_until_done(1)


def test_languages_and_looks(program):
    with Server(program) as s, Page(s) as page:
        dark = "getComputedStyle(document.documentElement).colorScheme === 'dark'"
        assert page.text("make-text") == "Make" and not page.script(f"return {dark}")
        page.click("switch-language")
        page.click("switch-theme")
        page.open()
        assert page.text("make-text") == "生成" and page.script("return document.documentElement.lang") == "zh-Hans"
        assert page.script(f"return {dark}")
        page.click("switch-theme")
        assert not page.script(f"return {dark}")
        page.look((1440, 900), "dark")
        assert not page.script(f"return {dark}"), "the switch is above the system"


def test_texts(program):
    """Each text that the page names is there in both languages, and none is left over."""
    with Server(program) as s:
        table = s.get("/assets/texts.js").body.decode()
        table = table[table.index("const table = {"):table.index("\n};")]
        rows = re.findall(r'^    (\w+): \[\s*("(?:[^"\\]|\\.)+"),\s*("(?:[^"\\]|\\.)+")\],?$', table, re.M)
        names = {name for name, *_ in rows}
        assert len(rows) == len(names) == len(re.findall(r"^    \w+:", table, re.M)), "a row is not of this form"
        for name, english, chinese in rows:
            assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), name
            assert not re.search("[\u4e00-\u9fff]", english) and re.search("[\u4e00-\u9fff]", chinese), name
        html = s.get("/").body.decode()
        code = "".join(s.get(f"/assets/{name}.js").body.decode() for name in SCRIPTS)
        used = set(re.findall(r'data-(?:t|label|title|placeholder)="(\w+)"', html))
        assert used <= names, used - names
        for name in re.findall(r'\bt\("(\w+)"', code):
            assert name in names, name
        words = set(re.findall(r'"(\w+)"', code)) | used
        left = {name for name in names - words if not name.startswith(("stage_", "recipe_"))}
        assert not left, f"nobody shows {left}"


PROMPTS = ("a whale on a light blue background", "a mushroom on a green background", "a panda, noto style",
           "a cat and a red apple", "a rocket on a blue background")
LOOKS = [(size, scheme) for size in ((1440, 900), (390, 844)) for scheme in ("light", "dark")]
# What is wrong with the page as it is laid out: controls that are cut or lie over each other, and texts that do not fit.
FAULTS = """
const faults = [], said = (element) => element.id || element.dataset.t || element.className || element.tagName;
const root = document.documentElement;
if (root.scrollWidth > innerWidth) faults.push(`the page is ${root.scrollWidth} wide, the window ${innerWidth}`);
const within = (box) => box.left >= -0.5 && box.right <= innerWidth + 0.5;
// Controls of a list that scrolls may be outside; a fold that is closed has none.
const all = [...document.querySelectorAll("button, input, select, textarea, summary, h1, h2")].filter((e) =>
    e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !e.closest("#strip"));
for (const e of all) {
    const box = e.getBoundingClientRect();
    if (box.width > 0 && !within(box)) faults.push(`${said(e)} is cut: ${box.left} to ${box.right}`);
    if (e.matches("button, summary, h1, h2") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
        faults.push(`the text of ${said(e)} does not fit`);
}
const pen = document.createElement("canvas").getContext("2d");
for (const e of document.querySelectorAll("input[type=text], input[type=number], .caption-facts")) {
    const style = getComputedStyle(e), text = e.value || e.placeholder || "";
    pen.font = style.font;
    const room = e.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (e.checkVisibility() && (pen.measureText(text).width > room || e.scrollWidth > e.clientWidth))
        faults.push(`the text of ${said(e)} is cut`);
}
// A button may lie in the padding of a field.
const boxOf = (e) => {
    const { left, top, right, bottom } = e.getBoundingClientRect();
    const padding = e.matches("input") ? parseFloat(getComputedStyle(e).paddingRight) : 0;
    return { left, top, right: right - padding, bottom };
};
for (const [i, a] of all.entries())
    for (const b of all.slice(i + 1)) {
        if (a.contains(b) || b.contains(a)) continue;
        const one = boxOf(a), two = boxOf(b);
        const width = Math.min(one.right, two.right) - Math.max(one.left, two.left);
        const height = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
        if (width > 1 && height > 1) faults.push(`${said(a)} and ${said(b)} overlap by ${width} x ${height}`);
    }
return faults;
"""
FOCUS = """
const style = getComputedStyle(document.activeElement);
return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 || style.boxShadow !== "none";
"""


def test_looks(program):
    """Nothing is cut, overlaps or lacks a visible focus, on a desk and on a phone, light and dark. ZIMAGE_SCREENSHOTS
    names a folder for the four screenshots."""
    folder = os.environ.get("ZIMAGE_SCREENSHOTS")
    with Server(program) as server, Page(server) as page:
        for number, prompt in enumerate(PROMPTS if folder else PROMPTS[:1], 1):
            page.fill(prompt=prompt, **({} if folder else {"steps": 2, "width": 128, "height": 128}))
            page.click("make")
            page.wait_until_done(number)
        for (width, height), scheme in LOOKS:
            page.look((width, height), scheme)
            page.driver.execute_async_script("setTimeout(arguments[0], 200)")
            faults = page.script(FAULTS)
            assert not faults, (width, scheme, faults)
            page.script("document.activeElement.blur()")
            for _ in range(8):
                ActionChains(page.driver).send_keys(Keys.TAB).perform()
                if not page.script("return document.activeElement !== document.body"):
                    break  # behind the last one
                assert page.script(FOCUS), page.script("return document.activeElement.outerHTML")
            page.script("document.activeElement.blur(); scrollTo(0, 0)")
            if folder:
                page.driver.execute_async_script("setTimeout(arguments[0], 700)")
                shoot(page, os.path.join(folder, f"page-{width}-{scheme}"))


def shoot(page, path):
    for kind in os.environ.get("ZIMAGE_SCREENSHOT_FORMATS", "webp").split():
        quality = {"quality": 80} if kind != "png" else {}
        shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": kind, **quality})
        with open(f"{path}.{kind}", "wb") as file:
            file.write(base64.b64decode(shot["data"]))


SCRIPTS = ("app", "form", "gallery", "jobs", "mask", "recipe", "stage", "texts")


def luminance(color):
    values = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast(program):
    """WCAG AA: 4.5 for text, 3 for what shows where a field is."""
    texts = [("ink", ground) for ground in ("panel", "ground", "raised", "field", "tint")]
    texts += [("soft", ground) for ground in ("panel", "ground", "raised", "field")]
    texts += [("accent", "panel"), ("accent", "tile"), ("on-accent", "accent"), ("on-accent", "accent-strong"),
              ("error", "panel"), ("panel", "ink"), ("ground", "ink")]
    with Server(program) as s, Page(s) as page:
        for scheme in ("light", "dark"):
            page.look((1440, 900), scheme)
            color = page.script("const s = getComputedStyle(document.documentElement); return Object.fromEntries("
                                "arguments[0].map((n) => [n, s.getPropertyValue('--' + n).trim()]))",
                                sorted({name for pair in texts for name in pair} | {"edge"}))
            for a, b in texts:
                assert contrast(color[a], color[b]) >= 4.5, (scheme, a, b, contrast(color[a], color[b]))
            for ground in ("panel", "field"):
                assert contrast(color["edge"], color[ground]) >= 3, (scheme, ground)


# Elements that can be used and have no name for a person who does not see them, names that occur twice, and targets
# that are small on a phone.
FLAWS = """
const flaws = [], least = arguments[0];
const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || e.title ||
    [...(e.labels ?? [])].some((l) => l.textContent.trim() || l.ariaLabel);
for (const e of document.querySelectorAll("button, input, select, textarea, a, [role], summary, dialog")) {
    const visible = e.checkVisibility({ opacityProperty: false });
    if (!named(e) && !(e.hidden) && e.id !== "toasts" && !e.matches("[role=alert], [role=status], [role=listitem]"))
        flaws.push("no name: " + e.outerHTML.slice(0, 120));
    for (const name of ["aria-describedby", "aria-controls", "aria-labelledby"])
        if (e.getAttribute(name) && !document.getElementById(e.getAttribute(name)))
            flaws.push("no " + e.getAttribute(name));
    if (!visible || !e.matches("button, select, summary")) continue;
    const box = e.getBoundingClientRect();
    if (box.height < least || box.width < 24)
        flaws.push(`${Math.round(box.width)} x ${Math.round(box.height)}: ` + e.outerHTML.slice(0, 120));
}
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) flaws.push("twice: " + id);
for (const img of document.images) if (!img.hasAttribute("alt")) flaws.push("no alt: " + img.outerHTML.slice(0, 80));
if (document.documentElement.scrollWidth > innerWidth) flaws.push("wider than the screen");
if (document.documentElement.scrollHeight > innerHeight) flaws.push("higher than the screen");
return flaws;
"""


def test_access(program):
    with Server(program) as s, Page(s) as page:
        small_form(page)
        page.click("make")
        page.wait_until_done(1)
        page.script("document.getElementById('more').open = true")
        for size, least in (((1440, 900), 24), ((360, 740), 36)):
            page.look(size, "light")
            page.check_flaws(least)
            for opener, dialog in (("open-gallery", "gallery"), ("open-help", "help"), ("do-mask_it", "mask")):
                page.click(opener)
                page.wait(dialog, f"document.getElementById('{dialog}').open")
                page.check_flaws(24)
                page.script("document.querySelector('dialog[open]').close()")
        page.look((1440, 900), "light")
        page.script("document.getElementById('prompt').focus()")
        reached = set()
        for _ in range(60):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            outline, name = page.script("""
                const e = document.activeElement, style = getComputedStyle(e);
                const parent = getComputedStyle(e.parentElement);
                return [`${style.outlineStyle} ${parent.outlineStyle}`, e.id || e.className];""")
            assert "solid" in outline or name in ("", "stage"), f"no focus to be seen: {name}"
            reached.add(name)
        for name in ("file", "width", "swap", "height", "seed", "random", "n", "steps", "make", "do-download", "thumb",
                     "switch-theme", "switch-language"):
            assert name in reached, f"{name} is not reached by Tab: {reached}"


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
