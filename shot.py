from playwright.sync_api import sync_playwright
import shutil

with sync_playwright() as p:
    b = p.chromium.launch(executable_path=shutil.which("chromium") or None, args=["--no-sandbox"])
    pg = b.new_page(viewport={"width": 1280, "height": 800})
    pg.goto("http://127.0.0.1:8599/inspect")
    pg.wait_for_timeout(12000)
    pg.screenshot(path="/tmp/u/ui.png")
    b.close()
