"""A real browser on a `ComfyProcess`: the system's Chromium, driven by Playwright (`pip install playwright` is enough)."""

import json
import os
import re
import shutil
import time
import urllib.parse

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions", "--no-first-run")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Otherwise drafts would be restored on the next start, a first start would show a welcome screen, and loading a workflow would
# list its missing models.
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}
# The frontend serves the packs' files here (its own old modules are under core/). A problem from here is never noise.
PACKS = re.compile(r"/extensions/(?!core/)")
# Failed responses caused by the host itself: status, path and query.
ANSWERS = [
    # A new user folder has none of these files, but every frontend requests them.
    (404, re.compile(r"(/api/userdata)?/user\.css")),
    (404, re.compile(r"/api/userdata\?dir=(workflows|subgraphs)\b.*")),
    (404, re.compile(r"/api/userdata/comfy\.templates\.json")),
    # Frontend 1.58 requests cancelled jobs, which ComfyUI 0.8.0 does not support.
    (400, re.compile(r"/api/jobs\?status=completed,failed,cancelled&.*")),
]
# Append the caller of console.error to the message.
_SAY_WHO = "const { error } = console; console.error = (...said) => error.call(console, ...said, `\\n${new Error().stack}`);"
# Console errors caused by the host itself: their text, and the script that logs them.
MESSAGES = [
    # From 1.49 on, the frontend requests the sizes of a workflow's missing models, including those of the first-start workflow.
    # Hosts without API nodes forbid these requests.
    (
        re.compile(r"^(Connecting to|Fetch API cannot load) '?https://(huggingface\.co|civitai\.com)/.*Content Security"),
        re.compile(r"/assets/missingModelMetadata-"),
    ),
    # Frontend 1.58 on ComfyUI 0.8.0, as above.
    (re.compile(r"^\[Jobs API\] Error fetching jobs: JobsApiError: Failed to fetch jobs: 400\b"), re.compile(r"/assets/api-")),
    # Frontend 1.49 logs this on every start, even without any pack.
    (re.compile(r"^ComfyApp graph accessed before initialization\b"), re.compile(r"/assets/settingStore-")),
]
# Uncaught exceptions caused by the host itself: a location in the stack.
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
    """Return the path of a Chromium (CAPFACE_CHROMIUM, or one on PATH), or None."""
    return os.environ.get("CAPFACE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def why_not():
    """Return the reason why no browser can be started here, or None."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no playwright: pip install playwright (without its own browsers)"
    return None if find_chromium() else "no Chromium: install it, or name it in CAPFACE_CHROMIUM"


def is_console_noise(text, script):
    """Return whether the host itself caused a console error, judging by its text with stack and the address of the script."""
    if PACKS.search(text) or PACKS.search(script):
        return False
    return any(said.search(text) and where.search(f"{script}\n{text}") for said, where in MESSAGES)


def is_exception_noise(stack):
    """Return whether the host itself caused an uncaught exception."""
    return not PACKS.search(stack) and any(place.search(stack) for place in EXCEPTIONS)


def is_response_noise(status, url):
    """Return whether the host itself caused a failed response."""
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
        """Open an isolated browser session. Its pages share storage with each other, as tabs do."""
        return self._browser.new_context(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale, service_workers="block"
        )


class CanvasPage:
    """ComfyUI's canvas in a tab.

    Args:
        session: From `Browser.session`.
        url: The host's.
        settings: Frontend settings that differ from the default; nothing is written to the host's user folder.

    Attributes:
        page: Playwright's page.
        problems: Console errors, exceptions and responses from status 400 on, without those that the host itself causes.
    """

    def __init__(self, session, url, settings=None):
        self.url, self.settings = url.rstrip("/"), {**QUIET, **(settings or {})}
        self.page, self.problems = session.new_page(), []
        self._under_way, self._last = set(), time.monotonic()
        page = self.page
        page.route(re.compile(r"^https?://(?!" + re.escape(self.url.split("//")[1]) + "/)"), lambda route: route.abort())
        page.route(re.compile(re.escape(self.url) + r"/(api/)?settings\b"), self._answer_settings)
        page.add_init_script(_SAY_WHO)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_exception)
        page.on("response", self._on_response)
        page.on("request", lambda request: self._under_way.add(request))
        for end in ("requestfinished", "requestfailed"):
            page.on(end, self._on_request_end)
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

    def _on_console(self, message):
        # Failed responses are recorded below, with their address.
        if message.type != "error" or "Failed to load resource" in message.text:
            return
        if not is_console_noise(message.text, message.location.get("url", "")):
            self.problems.append(message.text)

    def _on_exception(self, error):
        if not is_exception_noise(error.stack or ""):
            self.problems.append(f"{error}\n{error.stack or ''}".strip())

    def _on_response(self, response):
        if response.status >= 400 and not is_response_noise(response.status, response.url):
            self.problems.append(f"{response.status} {response.url}")

    def _on_request_end(self, request):
        self._under_way.discard(request)
        self._last = time.monotonic()

    def idle(self, quiet=0.3, limit=20.0):
        """Wait until nothing has been loading for `quiet` seconds and the page is drawn."""
        end = time.monotonic() + limit
        while time.monotonic() < end and (self._under_way or time.monotonic() - self._last < quiet):
            self.page.wait_for_timeout(30)
        self.page.evaluate(_FRAMES)

    def run(self, code):
        """Run JavaScript statements in the page, with `app` and `node(id or type)` in scope, and return their result."""
        return self.page.evaluate(_RUN, code)

    def prompt(self):
        """Return what saving and queueing would send, as JSON: {"workflow", "output"}."""
        return json.loads(self.run("return JSON.stringify(await app.graphToPrompt())"))

    def load(self, workflow, name="test"):
        """Load a workflow in the canvas's own format."""
        self.page.evaluate("([w, name]) => window.app.loadGraphData(w, true, false, name)", [workflow, name])
        self.idle()

    def at(self, selector, x, y, index=0):
        """Return the page pixels of a position in an element, given as fractions of its width and height."""
        box = self.page.locator(selector).nth(index).bounding_box(timeout=10_000)
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, selector, start: tuple[float, float], end: tuple[float, float], index=0, steps=8, key=None):
        """Drag from one position in an element to another, both as in `at`, optionally with a key held down."""
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
