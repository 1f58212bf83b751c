"""Pictures of the chat page, for README and docs. In: the address of a running `kogpt serve`. Out: two PNG files.

    kogpt serve demo/chat &
    python bench/page_pictures.py http://127.0.0.1:8000

`docs/chat.png` shows it on a desktop, in light mode, in Korean; `docs/chat-phone.png` on a phone, in dark mode. Needs
kogpt[ecosystem], and Debian's packages chromium and fonts-noto-cjk. The answers are the model's, as they come.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import sync_playwright
from tyro.conf import Positional

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True)
class Pictures:
    """Ask questions on the page, and photograph it."""

    address: Positional[str]
    """Address of a running `kogpt serve`."""
    questions: tuple[str, ...] = ("우리나라의 수도는 어디야?", "대통령의 임기는 몇 년이야?", "국회는 어떤 일을 해?")
    """Each is asked in a conversation of its own, at temperature 0; the last one is shown."""
    folder: Path = DOCS
    """Folder for the pictures."""
    chromium: Path = Path("/usr/bin/chromium")
    """The browser."""


def photograph(browser: Any, wanted: Pictures, name: str, width: int, height: int, scheme: str) -> None:
    context = browser.new_context(
        locale="ko-KR",
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        device_scale_factor=2,
    )
    context.add_init_script("localStorage['kogpt:settings'] = JSON.stringify({temperature: '0'})")
    page = context.new_page()
    page.goto(wanted.address)
    page.wait_for_selector("#state[data-state=ready]", timeout=120_000)
    for question in wanted.questions:
        if page.is_visible("#turns li"):
            page.evaluate("document.getElementById('new').click()")
        page.fill("#question", question)
        page.keyboard.press("Enter")
        page.wait_for_selector(".answer:not(.waiting) >> nth=-1", timeout=120_000)
        page.wait_for_selector("#halt", state="hidden", timeout=120_000)
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=wanted.folder / name)
    context.close()


def main() -> None:
    wanted = tyro.cli(Pictures)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=wanted.chromium, args=["--no-sandbox"])
        photograph(browser, wanted, "chat.png", 1120, 700, "light")
        photograph(browser, wanted, "chat-phone.png", 390, 700, "dark")
        browser.close()


if __name__ == "__main__":
    main()
