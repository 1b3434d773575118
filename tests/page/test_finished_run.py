"""A finished run as a page: one file, opened from the disk, with a slider."""

import asyncio
import re

import pytest
from playwright.async_api import expect
from support.page.browser import no_sideways_scroll, scenario_of

from sim_sled.page.files import in_one_file
from sim_sled.page.recording import recording_of
from sim_sled.play.run import play

SCENARIO = """
version: 1
name: moves
fleet: {sleds: 2}
latency: {preset: dev}
rules:
- name: keep
  for: {hostname: late-*}
  when: {publish: running}
  do: {hold: 20s}
load:
- at: 0s
  create: {hostname: web-1}
- at: 1s
  create: {hostname: late-1}
- at: 30s
  migrate: {hostname: web-1}
- at: 60s
  stop: {}
expect:
- name: never-so
  for: {hostname: web-1}
  after: {state: running}
  within: 5s
  that: {vmm: failed}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a run in which an expectation fails."""
    path = tmp_path_factory.mktemp("page") / "moves.html"
    path.write_text(in_one_file(recording_of(play(scenario_of(SCENARIO), 7))), encoding="utf-8")
    return path


async def seek(page, seconds):
    """Put the slider there, as a hand does."""
    await page.get_by_role("slider", name="time of the run").evaluate(
        "(slider, seconds) => { slider.value = seconds; slider.dispatchEvent(new Event('input')); }", seconds
    )


def chip(page, state):
    """Where it says how many are in a state."""
    return page.locator(".chip").filter(has_text=re.compile(f"^{state}")).locator("b")


async def test_the_slider_shows_the_state_at_its_time_forth_and_back(file, page):
    await page.goto(file.as_uri())
    await expect(page.get_by_text("finished run")).to_be_visible()
    await seek(page, 20)
    await expect(page.get_by_text("2 VMs on 2 sleds")).to_be_visible()
    await expect(chip(page, "running")).to_have_text("2")
    await seek(page, 90)
    await expect(page.get_by_text("0 VMs on 2 sleds")).to_be_visible()
    await seek(page, 20)
    await expect(page.get_by_text("2 VMs on 2 sleds")).to_be_visible()
    await expect(chip(page, "running")).to_have_text("2")
    assert all(url.startswith("file:") for url in page.watched.asked)


async def test_what_a_rule_held_then_is_shown_then(file, page):
    await page.goto(file.as_uri())
    await seek(page, 12)
    await expect(page.get_by_role("heading", name="1 report held")).to_be_visible()
    await seek(page, 45)
    await expect(page.get_by_role("heading", name=re.compile("report"))).to_be_hidden()
    # what is over cannot be released
    await expect(page.get_by_role("button", name="Release")).to_have_count(0)


async def test_a_failure_takes_you_to_its_time_and_says_why(file, page):
    await page.goto(file.as_uri())
    await page.get_by_role("button", name=re.compile("never-so")).first.click()
    await expect(page.locator(".time")).not_to_have_text(re.compile("^0.000"))
    await expect(page.get_by_role("region", name="one VM").get_by_role("heading", name="web-1")).to_be_visible()
    await expect(page.locator(".failures")).to_contain_text("Nexus last")


async def test_events_are_stepped_through_and_the_run_plays(file, page):
    await page.goto(file.as_uri())
    await expect(page.locator(".time")).to_have_text(re.compile("^0.000 s"))
    await page.keyboard.press(".")
    await expect(page.locator(".time")).not_to_have_text(re.compile("^0.000 s"))
    await page.keyboard.press(",")
    await expect(page.locator(".time")).to_have_text(re.compile("^0.000 s"))
    await page.get_by_label("speed").select_option("60")
    await page.get_by_role("button", name="Play").click()
    await expect(page.get_by_role("button", name="Play")).to_be_visible()
    await expect(page.get_by_text("0 VMs on 2 sleds")).to_be_visible()


async def test_both_sides_of_a_migration_then(file, page):
    await page.goto(file.as_uri() + "#v1")
    await seek(page, 31)
    story = page.get_by_role("region", name="one VM")
    await expect(story).to_contain_text("Both sides of its migration")
    await expect(story.locator("table.events tr.later").first).to_be_attached()


async def test_an_address_with_a_vm_opens_it_also_before_its_time_and_says_who_never_was(file, page):
    await page.goto(file.as_uri() + "#v2")
    story = page.get_by_role("region", name="one VM")
    await expect(story).to_contain_text("v2 is not there yet.")
    await expect(story).not_to_contain_text("gone")
    await seek(page, 20)
    await expect(story.get_by_role("heading", name="late-1")).to_be_visible()
    await page.evaluate("location.hash = '#v99'")
    await expect(page.get_by_text("no VMM of this run is called 'v99'; it has 3, from v1 on")).to_be_visible()


async def test_the_lanes_of_a_short_life_fit_their_panel(page, tmp_path):
    """By a few pixels they did not, and began scrolled to their end, with the first label cut."""
    short = tmp_path / "short.html"
    scenario = scenario_of("version: 1\nname: short\nload: [{at: 0s, create: {hostname: web-1}}]\n")
    short.write_text(in_one_file(recording_of(play(scenario, 7))), encoding="utf-8")
    await page.goto(short.as_uri() + "#v1")
    await seek(page, 20)
    lanes = page.get_by_role("region", name="one VM").locator(".lane-box")
    await expect(lanes.locator("svg rect").first).to_be_visible()
    async with asyncio.timeout(60):
        while not await lanes.evaluate("(box) => box.scrollWidth <= box.clientWidth"):
            pass  # drawn once more when its panel has got its width


async def test_a_name_from_a_run_never_becomes_a_tag(page, tmp_path):
    run = recording_of(play(scenario_of(SCENARIO), 7))
    for vm in run["vms"]:
        vm["name"] = '</script><img src=x onerror="window.pwned=1">'
    evil = tmp_path / "evil.html"
    evil.write_text(in_one_file(run), encoding="utf-8")
    await page.goto(evil.as_uri() + "#v1")
    await seek(page, 20)
    await expect(page.get_by_role("heading", name="img src=x")).to_be_visible()
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("img").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
async def test_the_plots_of_a_finished_run_say_what_they_are(file, pages, width):
    """`0 in 0.875 s, most 2,048` left room for the first letter of their names."""
    page = await pages(width, 800)
    await page.goto(file.as_uri())
    await seek(page, 20)
    rates = page.get_by_role("region", name="rates")
    await expect(rates).to_contain_text(re.compile(r"a bar is [\d.]+ (ms|s)"))
    names = rates.locator("figcaption span:first-child")
    await expect(names).to_have_text(["changes", "reports", "retries", "faults"])
    assert await names.evaluate_all("(all) => all.every((name) => name.scrollWidth <= name.clientWidth)")


async def test_a_finished_run_fits_a_telephone(file, pages):
    page = await pages(390, 844)
    await page.goto(file.as_uri() + "#v1")
    await seek(page, 20)
    await expect(page.get_by_role("region", name="one VM").get_by_role("heading", name="web-1")).to_be_visible()
    assert await no_sideways_scroll(page)
