"""The live page in a real browser: what somebody sees and does."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect
from support.page.browser import a_rack, cell_of, live, no_sideways_scroll

QUIET = """
version: 1
name: quiet
"""


async def test_the_page_has_a_title_an_icon_and_asks_nobody_else(rack, page):
    await rack.running("web-1")
    await live(page, rack)
    await expect(page).to_have_title(re.compile("demo · sim-sled"))
    icon = await page.locator("link[rel=icon]").get_attribute("href")
    assert (await page.request.get(f"http://{rack.address}{icon}")).ok
    assert {urlsplit(url).netloc for url in page.watched.asked} == {rack.address}


async def test_a_vm_is_opened_by_a_click_and_shows_its_why_and_its_life(rack, page):
    await rack.running("web-1", "stuck-1")
    await rack.small.stop_instance("stuck-1")
    await rack.small.expect("stuck-1", "stopping", within_s=60)
    await live(page, rack)
    await page.mouse.click(*await cell_of(page, "stuck-1"))
    story = page.get_by_role("region", name="one VM")
    await expect(story.get_by_role("heading", name="stuck-1")).to_be_visible()
    await expect(story).to_contain_text("for ever")
    await expect(story).to_contain_text("never-stops")
    await expect(story.locator(".lane-box svg rect").first).to_be_visible()
    await expect(story.locator("table.events")).to_contain_text("asked stopped")
    await expect(page).to_have_url(re.compile("#v2$"))


async def test_who_needs_a_look_is_listed_and_opened_from_there(rack, page):
    await rack.running("web-1", "stuck-1")
    await rack.small.stop_instance("stuck-1")
    await live(page, rack)
    await expect(page.get_by_role("heading", name="1 needs a look")).to_be_visible()
    await expect(page.locator(".look")).to_contain_text("rule never-stops")
    await page.get_by_role("button", name=re.compile("stuck-1")).click()
    await expect(page.get_by_role("region", name="one VM")).to_contain_text("halting")


async def test_a_held_report_is_released_and_is_gone(rack, page):
    await rack.running("late-1", "late-2")
    await live(page, rack)
    await expect(page.get_by_role("heading", name="2 reports held")).to_be_visible()
    await page.get_by_role("button", name="Release").click()
    await expect(page.get_by_role("heading", name=re.compile("reports? held"))).to_be_hidden()
    await rack.small.expect_public("late-1", "running", within_s=60)


async def test_a_manual_rule_is_fired_and_its_counter_moves(rack, page):
    await live(page, rack)
    rule = page.locator(".rule").filter(has_text="enough-of-it")
    await expect(rule).to_contain_text("fired 0")
    await rule.get_by_role("button", name="Fire").click()
    await expect(rule).to_contain_text("fired 1")


async def test_a_fault_is_injected_and_the_page_shows_what_came_of_it(rack, page):
    await rack.running("web-1")
    await live(page, rack, "#v1")
    await page.get_by_role("button", name="Fail", exact=True).click()
    await expect(page.get_by_text("Fail: injected")).to_be_visible()
    await expect(page.get_by_role("region", name="one VM")).to_contain_text("failed")


async def test_a_vm_is_stalled_by_a_button_and_released_by_another(rack, page):
    await rack.running("web-1")
    await live(page, rack, "#v1")
    await page.get_by_role("button", name="Stall", exact=True).click()
    await expect(page.get_by_text("Stall: injected")).to_be_visible()
    await rack.small.stop_instance("web-1")
    rule = page.locator(".rule").filter(has_text="injected-1")
    await rule.get_by_role("button", name="Release").click()
    await rack.small.expect("web-1", "destroyed", within_s=60)
    await expect(rule.get_by_role("button", name="Release")).to_be_hidden()


async def test_every_fault_that_the_page_offers_is_one_that_the_daemon_knows(rack, pages):
    labels = None
    for i in range(20):
        page = await pages()
        await rack.running(f"web-{i}")
        await live(page, rack, f"#v{i + 1}")
        buttons = page.locator(".faults button")
        await expect(buttons.first).to_be_visible()
        labels = labels or await buttons.all_inner_texts()
        if i >= len(labels):
            break
        await page.get_by_role("button", name=labels[i], exact=True).click()
        await expect(page.get_by_text(f"{labels[i]}: injected")).to_be_visible()
        await page.close()
    assert len(labels) >= 5


async def test_both_sides_of_a_migration_are_shown_together(rack, page):
    await rack.running("web-1")
    source = rack.small.meant("web-1")
    target = next(handle for handle in rack.small.handles if handle.id != source.sled_id)
    await rack.small.migrate_instance("web-1", target.id)
    await rack.small.expect("v2", "running", within_s=60)
    await live(page, rack, "#v2")
    story = page.get_by_role("region", name="one VM")
    await expect(story).to_contain_text("Both sides of its migration")
    heads = story.locator("table.events thead th")
    await expect(heads).to_have_text([re.compile("time"), re.compile("v1 .* source"), re.compile("v2 .* target")])
    await expect(story.locator(".lane-names")).to_contain_text("phase")
    await expect(story.locator(".whys h3")).to_have_text([re.compile("v1 .* source"), re.compile("v2 .* target")])
    await story.get_by_text("on the command line").click()
    await expect(story.locator(".ids")).to_contain_text("migration")


async def test_the_why_of_an_open_vm_follows_what_no_row_of_the_grid_tells(rack, page):
    """A rule that stalls a VM at rest makes no event. What somebody points at or selects stays as it is."""
    await rack.running("web-1")
    await live(page, rack, "#v1")
    story = page.get_by_role("region", name="one VM")
    await expect(story.locator("table.events")).to_contain_text("asked running")
    await story.locator(".faults").evaluate("(group) => { group.isTheSame = true; }")
    rack.small.daemon.do_once(rack.small.meant("web-1").propolis_id, "stall: true")
    await expect(story.locator("ul.why")).to_contain_text("stalls it for ever")
    assert await story.locator(".faults").evaluate("(group) => group.isTheSame")


async def test_an_open_side_of_a_migration_follows_the_other_side(rack, page):
    await rack.running("web-1")
    source = rack.small.meant("web-1")
    target = next(handle for handle in rack.small.handles if handle.id != source.sled_id)
    await live(page, rack, "#v1")
    story = page.get_by_role("region", name="one VM")
    await expect(story).to_contain_text("Nexus acknowledged running")
    await rack.small.migrate_instance("web-1", target.id)
    await rack.small.expect("v2", "running", within_s=60)
    await expect(story).to_contain_text("Both sides of its migration")
    await rack.small.stop_instance("web-1")
    await expect(story.locator(".whys li").filter(has_text="is gone: it was")).to_have_count(2)


async def test_an_address_that_was_sent_opens_a_vm_that_is_gone_meanwhile(rack, page):
    await rack.running("web-1")
    await rack.small.stop_instance("web-1")
    await rack.small.expect("web-1", "destroyed", within_s=60)
    await live(page, rack, "#v1")
    story = page.get_by_role("region", name="one VM")
    await expect(story.get_by_role("heading", name="web-1")).to_be_visible()
    await expect(story).to_contain_text("is gone: it was destroyed")


async def test_the_focus_stays_on_a_vm_while_one_above_it_leaves_the_list(rack, page):
    await rack.running("web-1", "late-1")
    rule = rack.small.daemon.do_once(rack.small.meant("web-1").propolis_id, "stall: true")
    await live(page, rack)
    await expect(page.locator(".look .tag")).to_have_text(["stuck", "held"])
    await page.get_by_role("button", name=re.compile("^late-1")).first.focus()
    assert rack.small.daemon.release(rule)
    await expect(page.get_by_role("heading", name="1 needs a look")).to_be_visible()
    assert "late-1" in await page.evaluate("document.activeElement.innerText")


async def test_what_happens_is_seen_without_reloading(rack, page):
    await live(page, rack)
    await expect(page.get_by_role("heading", name="No VMs yet")).to_be_visible()
    await rack.running("web-1")
    await expect(page.get_by_text("1 VM on 3 sleds")).to_be_visible()
    await expect(page.get_by_role("heading", name="No VMs yet")).to_be_hidden()
    await rack.small.scale(5)
    await expect(page.get_by_text("1 VM on 5 sleds")).to_be_visible()


async def test_time_goes_on_where_nothing_happens(rack, page):
    """A VM that is stuck makes no news: how long it has been so is told all the same."""
    await rack.running("stuck-1")
    await rack.small.stop_instance("stuck-1")
    await rack.small.expect("stuck-1", "stopping", within_s=60)
    await live(page, rack)
    stuck = page.get_by_role("button", name=re.compile("stuck-1"))
    await expect(stuck).to_contain_text(re.compile(r"stopping for \d"))
    told = await stuck.inner_text()
    await expect(stuck).not_to_have_text(told, use_inner_text=True)
    told = await stuck.inner_text()
    await expect(stuck).not_to_have_text(told, use_inner_text=True)


async def test_the_plots_tell_how_much_happens(rack, page):
    await live(page, rack)
    rates = page.get_by_role("region", name="rates")
    await expect(rates.locator("figcaption")).to_have_text(
        [re.compile(n) for n in ("changes", "reports", "retries", "faults")]
    )
    await rack.running("web-1")
    for name in ("changes", "reports"):
        plot = rates.locator("figure").filter(has_text=name)
        await expect(plot).to_contain_text(re.compile("most [1-9]"))
        await expect(plot.locator("path.bars")).to_have_attribute("d", re.compile("M.+"))


async def test_the_page_survives_a_restart_of_the_daemon_and_forgets_what_was(pages):
    page = await pages()
    page.watched.allowed += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET", "ERR_EMPTY"]
    async with a_rack() as first:
        await first.running("web-1", "web-2")
        address = first.address
        await live(page, first)
        await expect(page.get_by_text("2 VMs on 3 sleds")).to_be_visible()
        await first.unserve()
        await expect(page.get_by_role("alert")).to_contain_text("does not answer")
        await first.serve()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(page.get_by_text("2 VMs on 3 sleds")).to_be_visible()
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    async with a_rack(QUIET, sleds=2) as second:
        await second.running("other-1")
        await second.unserve()
        second.address = address
        await second.serve()
        await expect(page.get_by_text("1 VM on 2 sleds")).to_be_visible()
        await expect(page).to_have_title(re.compile("quiet"))


async def test_the_keyboard_is_enough(rack, page):
    await rack.running("web-1", "web-2", "web-3", "web-4")
    await live(page, rack)
    await page.keyboard.press("/")
    await page.keyboard.type("web-3")
    await expect(page.get_by_role("heading", name="1 found")).to_be_visible()
    await page.keyboard.press("Enter")
    story = page.get_by_role("region", name="one VM")
    await expect(story.get_by_role("heading", name="web-3")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(story).to_be_hidden()
    await page.keyboard.press("Home")  # closing leaves the focus on the grid
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    await expect(story.get_by_role("heading", name=re.compile("web-"))).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="keys")).to_be_visible()
    await expect(page.get_by_role("dialog", name="keys").locator("kbd").first).to_have_text("/")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog", name="keys")).to_be_hidden()


async def test_no_element_is_ever_shown_as_text(rack, page):
    await rack.running("late-1")
    await live(page, rack, "#v1")
    await expect(page.get_by_role("region", name="one VM")).to_contain_text("sim-sled why")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="keys")).to_be_visible()
    text = await page.locator("body").text_content()
    assert "[object" not in text
    assert "undefined" not in text


async def test_every_button_is_reached_by_tab_and_says_what_it_is(rack, page):
    await rack.running("late-1", "stuck-1")
    await rack.small.stop_instance("stuck-1")
    await live(page, rack)
    await expect(page.get_by_role("button", name="Release")).to_be_visible()
    await expect(page.get_by_role("button", name="Fire")).to_be_visible()
    reached = set()
    for _ in range(60):
        await page.keyboard.press("Tab")
        reached.add(
            await page.evaluate(
                "(document.activeElement.getAttribute('aria-label') || document.activeElement.innerText ||"
                " document.activeElement.tagName).trim()"
            )
        )
    assert {"Release", "Fire", "find VMs"} <= reached
    assert any(each.startswith("VMs by sled") for each in reached)
    assert "" not in reached


async def test_states_can_be_chosen_and_the_list_follows(rack, page):
    await rack.running("web-1", "web-2", "stuck-1")
    await rack.small.stop_instance("stuck-1")
    await rack.small.expect("stuck-1", "stopping", within_s=60)
    await live(page, rack)
    await page.get_by_role("button", name=re.compile("^running")).click()
    await expect(page.get_by_role("heading", name="2 found")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("heading", name="1 needs a look")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_scrolls_sideways_at_390_pixels(rack, pages, scheme):
    page = await pages(390, 844, scheme)
    await rack.running("late-1", "a-host-name-that-is-as-long-as-host-names-may-be-and-not-longer")
    await live(page, rack)
    await expect(page.get_by_role("button", name="Release")).to_be_visible()
    assert await no_sideways_scroll(page)
    await page.get_by_role("button", name=re.compile("late-1")).first.click()
    await expect(page.get_by_role("region", name="one VM").get_by_role("heading", name="late-1")).to_be_visible()
    assert await no_sideways_scroll(page)


async def test_the_page_is_dark_where_people_want_it_dark(rack, pages):
    papers = []
    for scheme in ("light", "dark"):
        page = await pages(scheme=scheme)
        await live(page, rack)
        papers.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", paper)[:3])) for paper in papers)
    assert light > 600
    assert dark < 120


async def test_every_shape_of_the_table_is_one_that_the_page_draws(rack, page):
    await live(page, rack)
    found = await page.evaluate(
        """async () => {
          const words = await (await fetch("/page/words.json")).json();
          const { isDrawn } = await import("/page/shapes.js");
          return words.states.filter((look) => !isDrawn(look.shape)).map((look) => look.word);
        }"""
    )
    assert found == []


async def test_time_is_stopped_stepped_and_goes_on(pages):
    page = await pages()
    async with a_rack(pace="dev") as rack:
        await live(page, rack)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_text("Time stands")).to_be_visible()
        await rack.small.create_instance("web-1")
        await expect(page.get_by_text("1 VM on 3 sleds")).to_be_visible()
        await expect(page.get_by_text("next in")).to_be_visible()
        chip = page.locator(".chip").filter(has_text=re.compile("^running")).locator("b")
        await expect(chip).to_have_text("0")
        await page.get_by_role("button", name="Step", exact=True).click()
        await page.get_by_role("button", name="+1 min").click()
        await expect(chip).to_have_text("1")
        await expect(page.get_by_text("Time stands")).to_be_visible()
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_text("Time stands")).to_be_hidden()
        await expect(page.get_by_role("button", name="Pause")).to_be_visible()
        assert not rack.small.daemon.clock.stands
        await page.close()  # before what it listens to
