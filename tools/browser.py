"""A real browser on a `ComfyProcess`: Chromium as the system has it, driven by Playwright (`pip install playwright` alone)."""

import json
import os
import re
import shutil
import time
import urllib.parse

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions", "--no-first-run")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Drafts would come back on the next start, a first start would greet, and a workflow would have its models listed.
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}
# Where the frontend serves what packs bring (its own old modules lie under core/): a problem from there is never noise.
PACKS = re.compile(r"/extensions/(?!core/)")
# Answers that are the host's own doing: status, path and query.
ANSWERS = [
    # A fresh user folder has none of these; every frontend asks.
    (404, re.compile(r"(/api/userdata)?/user\.css")),
    (404, re.compile(r"/api/userdata\?dir=(workflows|subgraphs)\b.*")),
    (404, re.compile(r"/api/userdata/comfy\.templates\.json")),
    # Frontend 1.58 asks for cancelled jobs, of which ComfyUI 0.8.0 knows nothing.
    (400, re.compile(r"/api/jobs\?status=completed,failed,cancelled&.*")),
]
# What calls console.error is said behind the message.
_SAY_WHO = "const { error } = console; console.error = (...said) => error.call(console, ...said, `\\n${new Error().stack}`);"
# Console errors that are the host's own doing: what they say, and the script that says it.
MESSAGES = [
    # From 1.49 on the frontend asks how large the models are that a workflow lacks, that of a first start for one; hosts
    # without API nodes forbid that.
    (
        re.compile(r"^(Connecting to|Fetch API cannot load) '?https://(huggingface\.co|civitai\.com)/.*Content Security"),
        re.compile(r"/assets/missingModelMetadata-"),
    ),
    # Frontend 1.58 on ComfyUI 0.8.0, as above.
    (re.compile(r"^\[Jobs API\] Error fetching jobs: JobsApiError: Failed to fetch jobs: 400\b"), re.compile(r"/assets/api-")),
    # Frontend 1.49 says it of itself on every start, with no pack at all.
    (re.compile(r"^ComfyApp graph accessed before initialization\b"), re.compile(r"/assets/settingStore-")),
]
# Uncaught exceptions that are the host's own doing: a place in the stack.
EXCEPTIONS = [
    # Frontend 1.27 sets one of its settings before it has registered it.
    re.compile(r"\baddSetting\b"),
]
_READY = """() => window.app?.vueAppReady && !window.app.extensionManager?.spinner && window.app.canvas?.graph
  && 'KSampler' in (window.LiteGraph?.registered_node_types ?? {})"""
_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
# Statements with `app` and `node(id or type)` in scope.
_RUN = """async (code) => {
  const run = new (async () => {}).constructor('app', 'node', code);
  const node = (key) => app.canvas.graph.nodes.find(n => n.id == key || n.type === key);
  return (await run(window.app, node)) ?? null;
}"""


def find_chromium():
    """Path of a Chromium (CAPFACE_CHROMIUM, or one on the path), or None."""
    return os.environ.get("CAPFACE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def why_not():
    """Why there can be no browser here, or None."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no playwright: pip install playwright (without its own browsers)"
    return None if find_chromium() else "no Chromium: install it, or name it in CAPFACE_CHROMIUM"


def is_noise_said(text, script):
    """Whether a console error is the host's own doing: what it says, its stack included, and the address of the script."""
    if PACKS.search(text) or PACKS.search(script):
        return False
    return any(said.search(text) and where.search(f"{script}\n{text}") for said, where in MESSAGES)


def is_noise_thrown(stack):
    """Whether an uncaught exception is the host's own doing."""
    return not PACKS.search(stack) and any(place.search(stack) for place in EXCEPTIONS)


def is_noise_answered(status, url):
    """Whether an answer that failed is the host's own doing."""
    parts = urllib.parse.urlsplit(url)
    asked = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return any(status == code and what.fullmatch(asked) for code, what in ANSWERS)


class Browser:
    """A headless browser; a context manager."""

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_):
        self._browser.close()
        self._playwright.stop()

    def session(self, size=(1400, 1000), scale=1.0):
        """A browser session of its own: nothing is kept from others, its pages share what tabs share."""
        return self._browser.new_context(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale, service_workers="block"
        )


class CanvasPage:
    """ComfyUI's canvas in a tab.

    Args:
        session: From `Browser.session`.
        url: The host's.
        settings: The frontend's settings that differ; nothing is written to the host's user folder.

    Attributes:
        page: Playwright's page.
        problems: Console errors, exceptions and answers from 400 on, less what is known to be the host's own doing.
    """

    def __init__(self, session, url, settings=None):
        self.url, self.settings = url.rstrip("/"), {**QUIET, **(settings or {})}
        self.page, self.problems = session.new_page(), []
        self._under_way, self._last = set(), time.monotonic()
        page = self.page
        page.route(re.compile(r"^https?://(?!" + re.escape(self.url.split("//")[1]) + "/)"), lambda route: route.abort())
        page.route(re.compile(re.escape(self.url) + r"/(api/)?settings\b"), self._answer_settings)
        page.add_init_script(_SAY_WHO)
        page.on("console", self._hear)
        page.on("pageerror", self._catch)
        page.on("response", self._see)
        page.on("request", lambda request: self._under_way.add(request))
        for end in ("requestfinished", "requestfailed"):
            page.on(end, self._done)
        self.open()

    def open(self):
        """Load the page, or load it again."""
        self.page.goto(self.url, wait_until="domcontentloaded")
        self.page.wait_for_function(_READY, polling=100, timeout=60_000)
        self.idle()

    def _answer_settings(self, route):
        if route.request.method != "GET":
            return route.fulfill(status=200, json=None)
        answer = route.fetch()
        values = answer.json()
        return route.fulfill(response=answer, json={**values, **self.settings} if isinstance(values, dict) else values)

    def _hear(self, message):
        # Answers that fail are seen below, with their address.
        if message.type != "error" or "Failed to load resource" in message.text:
            return
        if not is_noise_said(message.text, message.location.get("url", "")):
            self.problems.append(message.text)

    def _catch(self, error):
        if not is_noise_thrown(error.stack or ""):
            self.problems.append(f"{error}\n{error.stack or ''}".strip())

    def _see(self, response):
        if response.status >= 400 and not is_noise_answered(response.status, response.url):
            self.problems.append(f"{response.status} {response.url}")

    def _done(self, request):
        self._under_way.discard(request)
        self._last = time.monotonic()

    def idle(self, quiet=0.3, limit=20.0):
        """Wait until nothing has been loading for a while, and it is drawn."""
        end = time.monotonic() + limit
        while time.monotonic() < end and (self._under_way or time.monotonic() - self._last < quiet):
            self.page.wait_for_timeout(30)
        self.page.evaluate(_FRAMES)

    def run(self, code):
        """Run JavaScript statements in the page, with `app` and `node(id or type)` in scope; gives what they return."""
        return self.page.evaluate(_RUN, code)

    def prompt(self):
        """What saving and what queueing sends, as JSON: {"workflow", "output"}."""
        return json.loads(self.run("return JSON.stringify(await app.graphToPrompt())"))

    def load(self, workflow, name="test"):
        """Load a workflow in the canvas's own format."""
        self.page.evaluate("([w, name]) => window.app.loadGraphData(w, true, false, name)", [workflow, name])
        self.idle()

    def at(self, selector, x, y, index=0):
        """Page pixels of a place in an element, given as shares of its width and height."""
        box = self.page.locator(selector).nth(index).bounding_box(timeout=10_000)
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, selector, start: tuple[float, float], end: tuple[float, float], index=0, steps=8, key=None):
        """Drag from one place in an element to another, both as for `at`, with a key held."""
        (x0, y0), (x1, y1) = self.at(selector, *start, index), self.at(selector, *end, index)
        mouse, keyboard = self.page.mouse, self.page.keyboard
        if key:
            keyboard.down(key)
        mouse.move(x0, y0)
        mouse.down()
        for step in range(1, steps + 1):
            mouse.move(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps)
            self.page.wait_for_timeout(20)
        mouse.up()
        if key:
            keyboard.up(key)
        self.idle()
