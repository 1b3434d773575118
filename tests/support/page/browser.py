"""Racks for the page's tests, and what they look at in a browser. Needs playwright: only `make test-page` has it."""

import asyncio
import os
import shutil
from contextlib import asynccontextmanager

import attrs
import pytest
from playwright.async_api import expect

from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.language.check import parse_scenario

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WITHIN_MS = 60_000
"""Until something is to be seen: nothing takes a hundredth of it on a machine that does nothing else."""
expect.set_options(timeout=WITHIN_MS)
RULES = """
version: 1
name: demo
agent: {stop_grace: 10m}
rules:
- name: never-stops
  for: {hostname: stuck-*}
  when: {state: stopping}
  do: {stall: true}
- name: keep
  for: {hostname: late-*}
  when: {publish: running}
  do: {hold: {until: enough}}
- name: enough-of-it
  when: {manual: enough}
  do: {note: enough}
"""


def browser_path():
    """The Chromium that is there; `CHROMIUM` names another."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.exit("there is no Chromium here: apt-get install chromium, or CHROMIUM=/path/to/one", returncode=3)
    return found


@attrs.define(eq=False)
class Rack:
    """A rack with its control API, which can be ended and started again at the same address."""

    small: SmallRack
    token: str | None = None
    control: Control | None = None
    listener: object = None
    address: str = "127.0.0.1:0"

    @property
    def url(self):
        return f"http://{self.address}/page"

    async def serve(self):
        self.control = Control(self.small.daemon, self.token)
        self.listener = await serve_control(self.control, SocketAddress.parse(self.address))
        self.address = self.listener.address

    async def unserve(self):
        await self.listener.close()

    async def running(self, *names):
        """In this order: those of the first sled come first. All boot at once."""
        for name in names:
            await self.small.create_instance(name)
        for name in names:
            await self.small.expect(name, "running", within_s=60)


def scenario_of(text):
    scenario, problems = parse_scenario(text, "demo.yaml")
    assert scenario is not None, problems.text()
    return scenario


@asynccontextmanager
async def a_rack(text=RULES, sleds=3, token=None, **more):
    logs.configure(level="error")
    async with SmallRack(sleds=sleds, scenario=scenario_of(text) if text else None, **more) as small:
        one = Rack(small, token)
        await one.serve()
        try:
            yield one
        finally:
            await one.unserve()


@attrs.define(eq=False)
class Watched:
    """A page, and what it should not have done."""

    page: object
    wrong: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)
    allowed: list[str] = attrs.field(factory=list)
    """Parts of complaints that this test provokes."""

    def said(self, message):
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def complaints(self):
        return [each for each in self.wrong if not any(part in each for part in self.allowed)]


async def live(page, rack, path=""):
    """The page of a rack, connected."""
    await page.goto(rack.url + path)
    await expect(page.get_by_role("status").filter(has_text="live").first).to_be_visible()


async def no_sideways_scroll(page):
    """Whether nothing is wider than the window."""
    wide, window = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return wide <= window


async def cell_of(page, name):
    """Where a VM is on the canvas, found as a hand does: by moving about until the grid says so."""
    box = await page.locator(".grid").bounding_box()
    async with asyncio.timeout(60):
        while True:
            for y in range(int(box["y"]) + 40, int(box["y"] + min(box["height"], 400)), 16):
                for x in range(int(box["x"]) + 24, int(box["x"] + box["width"]), 60):
                    await page.mouse.move(x, y)
                    if (await page.locator(".tip").text_content()).startswith(f"{name} "):
                        return x, y
