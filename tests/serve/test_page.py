"""The chat page in Debian's chromium, driven by Playwright, against the real server.

The model has learnt its answers by heart (chats.py), and is slowed down so that its answers can be seen to stream.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from chats import ANSWERS
from pages import PACE, Served, answers_seen, ask, needs_chromium, turns, until

pytestmark = [pytest.mark.ecosystem, needs_chromium]

GREETING, CAPITAL, TAGS = ANSWERS
Open = Callable[..., Any]
UNHURRIED = 0.25
"""Seconds per token of an answer that must not end before it is stopped: 20 s for it."""
IDLE = "!document.querySelector('.waiting')"


def begun(page: Any, turn: int = 0) -> None:
    """Wait until something of the answer is shown."""
    until(page, f"document.querySelectorAll('.answer .text')[{turn}]?.textContent.length > 3")


def test_an_answer_streams_in_whole_syllables(tab: Open) -> None:
    page = tab()
    seen = answers_seen(page)
    ask(page, CAPITAL)
    whole = ANSWERS[CAPITAL]
    assert turns(page) == [(CAPITAL, whole)]
    assert len(set(seen())) > 5, "it came at once"
    assert all(whole.startswith(text) for text in seen()), "a part of a character was shown, or text was taken back"
    assert re.fullmatch(r"\d+토큰 · 초당 [\d.]+토큰", page.inner_text(".answer .note"))
    assert page.text_content("#announce") == whole, "what a screen reader says once the answer is there"


def test_enter_sends_but_not_the_one_that_ends_a_syllable(tab: Open) -> None:
    page = tab()
    page.focus("#question")
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "안녕하세", "selectionStart": 4, "selectionEnd": 4})
    enter = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keyboard.send("Input.dispatchKeyEvent", enter)
    assert page.locator("#turns li").count() == 0
    keyboard.send("Input.insertText", {"text": "안녕하세요"})
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("?")
    assert page.input_value("#question") == "안녕하세요\n?"
    page.fill("#question", GREETING)
    page.keyboard.press("Enter")
    page.wait_for_selector("#turns li")
    assert page.input_value("#question") == ""


def test_stop_keeps_what_came_and_frees_the_place(tab: Open, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tab()
    monkeypatch.setitem(PACE, "seconds", UNHURRIED)
    ask(page, TAGS, wait=False)
    begun(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("#halt", state="hidden")
    ((_, part),) = turns(page)
    assert 3 < len(part) < len(ANSWERS[TAGS])
    assert ANSWERS[TAGS].startswith(part)
    assert "멈춤" in page.inner_text(".answer .note")
    served.wait_until_idle()
    monkeypatch.undo()
    page.click(".retry")
    page.wait_for_selector("#halt", state="hidden")
    assert turns(page) == [(TAGS, ANSWERS[TAGS])]


def test_a_reload_finds_the_conversation_again(tab: Open, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tab()
    ask(page, GREETING)
    page.click("#new")
    monkeypatch.setitem(PACE, "seconds", UNHURRIED)
    ask(page, CAPITAL, wait=False)
    begun(page)
    page.reload()
    page.wait_for_selector("#state[data-state=ready]")
    served.wait_until_idle()
    ((question, part),) = turns(page)
    assert question == CAPITAL
    assert len(part) > 3
    assert ANSWERS[CAPITAL].startswith(part)
    assert page.locator("#list .open").all_inner_texts() == [CAPITAL, GREETING]
    page.click(f"#list .open:has-text('{GREETING}')")
    assert turns(page) == [(GREETING, ANSWERS[GREETING])]


def test_the_last_question_can_be_edited(tab: Open) -> None:
    page = tab()
    ask(page, CAPITAL)
    ask(page, TAGS)
    page.focus("#question")
    page.keyboard.press("ArrowUp")
    assert page.input_value("#question") == TAGS
    ask(page, GREETING)
    assert [question for question, _ in turns(page)] == [CAPITAL, GREETING]
    page.click(".edit >> visible=true")
    page.click("#cancel-edit")
    assert page.input_value("#question") == ""
    assert len(turns(page)) == 2


def test_two_tabs_keep_what_the_other_wrote(tab: Open) -> None:
    one, two = tab(), tab()
    ask(one, GREETING, wait=False)
    ask(two, CAPITAL, wait=False)
    for page in (one, two):
        page.wait_for_selector("#halt", state="hidden")
        until(page, "document.querySelectorAll('#list li').length === 2")
    assert turns(one) == [(GREETING, ANSWERS[GREETING])]
    assert turns(two) == [(CAPITAL, ANSWERS[CAPITAL])]

    two.click(f"#list .open:has-text('{GREETING}')")  # now the same conversation in both, and both ask at once
    ask(one, CAPITAL, wait=False)
    ask(two, TAGS, wait=False)
    for page in (one, two):
        page.wait_for_selector("#halt", state="hidden")
        until(page, f"document.querySelectorAll('#turns li').length === 3 && {IDLE}")
    assert turns(one) == turns(two)
    assert {question for question, _ in turns(one)} == {GREETING, CAPITAL, TAGS}
    assert all(answer for _, answer in turns(one))


def test_conversations_can_be_chosen_and_deleted(tab: Open) -> None:
    page, other = tab(), tab()
    ask(page, GREETING)
    page.click("#new")
    ask(page, CAPITAL)
    page.click(f"#list .open:has-text('{GREETING}')")
    assert [question for question, _ in turns(page)] == [GREETING]
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#list li:has([aria-current]) .delete")
    page.wait_for_selector("#welcome")
    assert page.locator("#list li").count() == 1
    until(other, "document.querySelectorAll('#list li').length === 1")


def test_texts_are_never_html(tab: Open) -> None:
    page = tab()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    ask(page, TAGS)
    assert turns(page) == [(TAGS, ANSWERS[TAGS])]
    ask(page, "<b>굵게</b> <img src=x onerror=alert(1)>")
    assert page.locator("#turns").locator("script, img, a, b").count() == 0
    assert not errors
    # And if a script came in all the same, the browser would not run it.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in errors)


def test_settings_reach_the_server(tab: Open) -> None:
    page = tab()
    page.click("#open-settings")
    page.fill("#system", "짧게 답하세요.")
    page.fill("[name=max_tokens]", "5")
    page.fill("[name=seed]", "7")
    page.select_option("[name=theme]", "dark")
    page.click("dialog .solid")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, GREETING)
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "짧게 답하세요."}
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0, 5, 7)
    assert "길이 제한" in page.inner_text(".answer .note")
    page.reload()
    page.click("#open-settings")
    assert page.input_value("#system") == "짧게 답하세요."
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_server_that_goes_and_comes_back(tab: Open, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.another() as server:
        page = tab(server.url)
        monkeypatch.setitem(PACE, "seconds", UNHURRIED)  # the server does not wait so long for it at its end
        ask(page, CAPITAL, wait=False)
        begun(page)
        server.stop()
        monkeypatch.undo()
        page.wait_for_selector("#state[data-state=gone]")
        assert "kogpt serve" in page.inner_text("#notice")
        assert "끊어졌습니다" in page.inner_text(".answer .note")
        server.start()
        page.wait_for_selector("#state[data-state=ready]")
        assert page.is_hidden("#notice")
        page.click(".retry")
        page.wait_for_selector("#halt", state="hidden")
        assert turns(page) == [(CAPITAL, ANSWERS[CAPITAL])]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_has_failed_is_not_waited_for(tab: Open, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.another() as server:
        page = tab(server.url)
        monkeypatch.setattr(server.service._batcher._engine, "_forward", lambda *_: 1 / 0)
        ask(page, GREETING)
        page.wait_for_selector("#state[data-state=failed]")
        assert page.inner_text("#state") == "모델이 고장 남"
        assert "다시 시작하세요" in page.inner_text("#notice")
        assert "kogpt serve" in page.inner_text("#notice")


def test_a_busy_server_is_waited_for(tab: Open, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.another(places=1, queue=0) as server:
        first, second = tab(server.url), tab(server.url)
        monkeypatch.setitem(PACE, "seconds", UNHURRIED)
        ask(first, TAGS, wait=False)
        begun(first)
        ask(second, GREETING, wait=False)
        until(second, "document.querySelector('.answer .note').textContent.includes('바쁩니다')")
        first.keyboard.press("Escape")
        monkeypatch.undo()
        second.wait_for_selector("#halt", state="hidden")
        assert turns(second) == [(GREETING, ANSWERS[GREETING])]


def test_a_server_that_wants_a_key(tab: Open, served: Served) -> None:
    with served.another(key="open-sesame") as server:
        page = tab(server.url, "keyNeeded")
        page.click("#notice button")
        page.fill("#key", "open-sesame")
        page.click("dialog .solid")
        page.wait_for_selector("#state[data-state=ready]")
        ask(page, GREETING)
        assert turns(page) == [(GREETING, ANSWERS[GREETING])]


def test_a_base_model_says_so_and_continues_texts(tab: Open, served: Served) -> None:
    with served.another(answers_chat=False) as server:
        page = tab(server.url, "base")
        assert "학습하지 않았습니다" in page.inner_text("#notice")
        assert "--init" in page.inner_text("#notice")
        with page.expect_request("**/v1/completions") as sent:
            ask(page, "대한민국의")
        assert sent.value.post_data_json["prompt"] == "대한민국의"
        assert page.locator(".answer.failed").count() == 0


@pytest.mark.parametrize(("locale", "language", "word"), [("ko-KR", "ko", "준비됨"), ("de-DE", "en", "Ready")])
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_languages_widths_and_colours(
    browser: Any, served: Served, locale: str, language: str, word: str, width: int, scheme: str
) -> None:
    context = browser.new_context(locale=locale, color_scheme=scheme, viewport={"width": width, "height": 700})
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#state[data-state=ready]", timeout=60_000)
    assert page.inner_text("#state") == word
    assert page.evaluate("document.documentElement.lang") == language
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) < 200) == (scheme == "dark")
    unnamed = "button => !(button.textContent.trim() || button.getAttribute('aria-label'))"
    assert page.evaluate(f"[...document.querySelectorAll('button')].filter({unnamed}).length") == 0
    assert page.is_visible("#new") == (width > 1000)
    if width < 1000:  # the list can be opened and left by the keyboard
        page.focus("#open-side")
        page.keyboard.press("Enter")
        page.wait_for_selector("#new", state="visible")
        assert page.get_attribute("#open-side", "aria-expanded") == "true"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "open-side"
    context.close()
