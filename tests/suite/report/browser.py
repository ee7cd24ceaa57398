"""Opens a page in Chromium, headless, over its debugging pipe, as a phone and as a desk would, light and dark.

    browser.py PAGE [FOLDER]    prints what each saw, as JSON; screenshots go to FOLDER

For each: console errors and refused requests, how much wider than the window the page is, and what scripts it ran.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"]  # fmt: skip
VIEWS = {"phone": (390, 844, "light"), "phone-dark": (390, 844, "dark"), "desk": (1200, 900, "light"), "desk-dark": (1200, 900, "dark")}


class Browser:
    """Chromium's protocol: JSON messages that end in a zero byte, in by descriptor 3, out by 4."""

    def __init__(self, profile: str):
        read_in, self.out = os.pipe()
        self.back, write_out = os.pipe()

        def wire() -> None:
            # Out of the way first: either may be 3 or 4 itself.
            a, b = os.dup(read_in), os.dup(write_out)
            os.dup2(a, 3)
            os.dup2(b, 4)

        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_in), os.close(write_out)
        self.number, self.left, self.events = 0, b"", []

    def message(self) -> dict:
        while b"\0" not in self.left:
            chunk = os.read(self.back, 1 << 16)
            if not chunk:
                sys.exit("chromium ended early")
            self.left += chunk
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, session: str | None = None, **params) -> dict:
        self.number += 1
        order = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.out, json.dumps(order).encode() + b"\0")
        while (message := self.message()).get("id") != self.number:
            self.events.append(message)
        if "error" in message:
            sys.exit(f"{method}: {message['error']}")
        return message["result"]

    def until(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message())


def look(browser: Browser, page: str, view: str, folder: Path | None) -> dict:
    width, height, scheme = VIEWS[view]
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    call = lambda method, **params: browser.call(method, session, **params)  # noqa: E731
    for domain in ("Page", "Log", "Runtime", "Network"):
        call(f"{domain}.enable")
    call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    call("Page.navigate", url=page)
    browser.until("Page.loadEventFired")
    value = lambda code: call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")  # noqa: E731
    seen = {
        "beyond": value("document.documentElement.scrollWidth - innerWidth"),
        "background": value("getComputedStyle(document.body).backgroundColor"),
        "title": value("document.title"),
        "alerted": value("typeof alerted !== 'undefined'"),
        "figures": value("JSON.parse(document.getElementById('figures').textContent).corpus.rows"),
        "elements": value("document.querySelectorAll('*').length"),
        "scripts": value("document.scripts.length"),
        "pictures": value("[...document.images].filter(i => i.complete && i.naturalWidth > 0).length"),
        "unfilled": value("[...document.querySelectorAll('svg rect')].filter(r => getComputedStyle(r).fill === 'none').length"),
    }
    if folder:
        tall = value("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}
        shot = call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (folder / f"{view}.png").write_bytes(base64.b64decode(shot["data"]))
    dialogs = [event for event in browser.events if event.get("method") == "Page.javascriptDialogOpening"]
    entries = [event["params"]["entry"] for event in browser.events if event.get("method") == "Log.entryAdded"]
    requests = [event["params"]["request"]["url"] for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
    seen["errors"] = [entry["text"] for entry in entries if entry["level"] == "error"] + ["a dialog"] * len(dialogs)
    seen["requests"] = [url for url in requests if not url.startswith(("file:", "data:image/"))]
    browser.call("Target.closeTarget", targetId=target)
    return seen


def main(page: str, folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            url = Path(page).resolve().as_uri()
            seen = {view: look(browser, url, view, Path(folder) if folder else None) for view in VIEWS}
        finally:
            browser.process.kill()
            browser.process.wait()
    json.dump(seen, sys.stdout, indent=1)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
