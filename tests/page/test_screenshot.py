"""The picture in README, made from a rack in which something is going on; `SIM_SLED_UPDATE=1` makes it again."""

import os
from pathlib import Path

from playwright.async_api import expect
from support.page.browser import a_rack, live

PICTURE = Path(__file__).parents[2] / "docs" / "page.png"
SIZE = (1280, 760)


async def test_the_picture_of_readme_is_of_this_page(pages):
    page = await pages(*SIZE, "dark", reduced_motion="reduce")
    async with a_rack(sleds=4, pace="dev") as rack:
        await rack.running(*(f"web-{i}" for i in range(1, 15)), "late-1", "late-2", "stuck-1")
        await rack.small.stop_instance("stuck-1")
        await rack.small.expect("stuck-1", "stopping", within_s=60)
        source = rack.small.meant("web-3")
        target = next(handle for handle in rack.small.handles if handle.id != source.sled_id)
        await rack.small.migrate_instance("web-3", target.id)
        await rack.small.expect("v18", "running", within_s=60)
        await live(page, rack, "#v18")
        story = page.get_by_role("region", name="one VM")
        await expect(story).to_contain_text("Both sides of its migration")
        await expect(page.get_by_text("17 VMs on 4 sleds")).to_be_visible()
        picture = await page.screenshot()
        if os.environ.get("SIM_SLED_UPDATE") == "1" or not PICTURE.exists():
            PICTURE.write_bytes(picture)
        assert PICTURE.stat().st_size < 200_000, "a picture of README is small"
        await page.close()
        width, height = (int.from_bytes(PICTURE.read_bytes()[at : at + 4], "big") for at in (16, 20))
        assert (width, height) == SIZE, "SIM_SLED_UPDATE=1 make test-page makes it again"
