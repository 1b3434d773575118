"""A real headless Chromium in front of a rack in this process. Only `make test-page` collects this folder.

Every page is watched: an error on its console, a refusal by its policy or a dialog fails the test.
"""

from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from support.page.browser import WITHIN_MS, Watched, a_rack, browser_path

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """All of this folder in one loop: it is what the one browser of all tests lives in. Others that come with
    them stay in their own: in a loop that is not that of their fixtures they would wait for ever.
    """
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session")
async def rack():
    """Three sleds, and the rules above."""
    async with a_rack() as one:
        yield one


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser():
    """Its start takes longer than most tests; what they must not share is in a context each."""
    async with async_playwright() as playwright:
        args = ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
        started = await playwright.chromium.launch(executable_path=browser_path(), args=args)
        try:
            yield started
        finally:
            await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def pages(browser):
    """Makes pages: `await pages(width=390, scheme="dark")`."""
    made = []
    contexts = []

    async def make(width=1280, height=800, scheme="light", **more):
        context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(WITHIN_MS)
        watched = Watched(page)
        page.watched = watched
        page.on(
            "console", lambda said: watched.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: watched.wrong.append(str(error)))
        page.on("dialog", lambda dialog: watched.wrong.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: watched.asked.append(request.url))
        made.append(watched)
        return page

    yield make
    for context in contexts:
        await context.close()
    for watched in made:
        assert watched.complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(pages):
    return await pages()
