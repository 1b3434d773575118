"""What the page and its listener keep out, tried with a real browser."""

from uuid import uuid4

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import expect
from support.page.browser import a_rack, live

from nexus_client.types import VmmRuntimeState, VmmState, time_of
from sim_sled.core import contract

EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'


@pytest_asyncio.fixture(loop_scope="session")
async def elsewhere():
    """Another site: serves whatever text is put at a path."""
    texts = {}

    async def serve(request):
        return web.Response(text=texts.get(request.path, ""), content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    texts["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield texts
    await runner.cleanup()


async def registered(rack, hostname):
    """A VM with a name that no Nexus would give it."""
    daemon = rack.small.daemon
    about = contract.Registration(
        instance_id=uuid4(),
        vmm_runtime=VmmRuntimeState(VmmState.STARTING, 1, time_of(daemon.clock.now_us())),
        propolis_addr="[::1]:1",
        ncpus=1,
        memory_mib=1024,
        hostname=hostname,
        silo_id=uuid4(),
        project_id=uuid4(),
    )
    await daemon.submit(contract.Register(daemon.ticket(), rack.small.handles[0].id, uuid4(), about))


async def test_what_a_vm_is_called_never_becomes_a_tag(rack, page):
    await registered(rack, EVIL)
    await live(page, rack, "#v1")
    story = page.get_by_role("region", name="one VM")
    await expect(story.get_by_role("heading", name=EVIL)).to_be_visible()
    await page.get_by_role("searchbox").fill("img")
    await expect(page.get_by_role("button", name="img src=x")).to_be_visible()
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("img").count() == 0


async def test_a_script_that_gets_in_all_the_same_is_not_run(rack, page):
    page.watched.allowed += ["Content Security Policy", "TrustedHTML", "TrustedScript"]
    await live(page, rack)
    refused = await page.evaluate(
        """() => {
          const refused = [];
          try { document.body.innerHTML = '<img src=x onerror="window.pwned=1">'; } catch { refused.push("HTML"); }
          const script = document.createElement('script');
          try { script.text = 'window.pwned = 1'; document.body.append(script); } catch { refused.push("script"); }
          return refused;
        }"""
    )
    assert refused == ["HTML", "script"]  # an image's error comes later than a look at `pwned`
    assert await page.evaluate("window.pwned") is None


@pytest.mark.parametrize("how", ["fetch", "form"])
async def test_a_page_of_elsewhere_cannot_release_anything(rack, page, elsewhere, how):
    page.watched.allowed += ["403", "CORS", "NotSameOrigin", "Failed to fetch"]
    await rack.running("late-1")
    await live(page, rack)
    await expect(page.get_by_role("button", name="Release")).to_be_visible()
    target = f"http://{rack.address}/release/keep"
    elsewhere["/fetch"] = (
        f"<script>fetch('{target}', {{method: 'POST', mode: 'no-cors'}}).finally(() => done = 1)</script>"
    )
    elsewhere["/form"] = f"<form method=post action='{target}'></form><script>document.forms[0].submit()</script>"
    await page.goto(f"{elsewhere['url']}/{how}")
    if how == "fetch":
        await page.wait_for_function("window.done === 1")
    else:
        await expect(page.locator("body")).to_contain_text("pages of elsewhere")
    assert rack.small.daemon.engine.post.holds("keep")


async def test_a_page_of_elsewhere_cannot_read_anything(rack, page, elsewhere):
    page.watched.allowed += ["403", "CORS", "Failed to", "ERR_"]
    elsewhere["/read"] = f"""<script>
      Promise.allSettled([fetch("http://{rack.address}/vmms").then((a) => a.text()), import("http://{rack.address}/page/main.js")])
        .then((told) => read = told.map((each) => each.status))
    </script>"""
    await page.goto(f"{elsewhere['url']}/read")
    await page.wait_for_function("window.read")
    assert await page.evaluate("read") == ["rejected", "rejected"]


async def test_the_page_cannot_be_framed(rack, page, elsewhere):
    page.watched.allowed += ["frame-ancestors", "ERR_", "403", "Framing"]
    elsewhere["/frame"] = f"<iframe src='{rack.url}'></iframe>"
    await page.goto(f"{elsewhere['url']}/frame")
    frame = page.frames[-1]
    assert await frame.locator("#page").count() == 0


async def test_a_name_that_was_made_to_lead_here_is_refused(rack, page):
    page.watched.allowed += ["403"]
    port = rack.address.rpartition(":")[2]
    answer = await page.goto(f"http://evil.example:{port}/page")
    assert answer.status == 403
    assert await page.locator("#page").count() == 0


async def test_a_daemon_with_a_token_asks_for_it_and_takes_no_other(pages):
    page = await pages()
    page.watched.allowed += ["401"]
    async with a_rack(token="open-sesame") as rack:
        await rack.running("web-1")
        await page.goto(rack.url)
        dialog = page.get_by_role("dialog", name="control token")
        await expect(dialog).to_be_visible()
        assert "web-1" not in await page.content()
        await page.get_by_label("control token").last.fill("wrong")
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_visible()
        await page.get_by_label("control token").last.fill("open-sesame")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("1 VM on 3 sleds")).to_be_visible()
        await page.close()


async def test_a_token_behind_the_hash_opens_the_page_and_leaves_the_address(pages):
    page = await pages()
    async with a_rack(token="open-sesame") as rack:
        await rack.running("web-1")
        await page.goto(f"{rack.url}#token=open-sesame")
        await expect(page.get_by_text("1 VM on 3 sleds")).to_be_visible()
        assert "sesame" not in page.url
        assert not any("sesame" in url for url in page.watched.asked)
        await page.close()
