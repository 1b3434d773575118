"""A small public API of Nexus, answering by its document, over the model: for `nexus.external` of a scenario.

`troubles`: answers (status, headers, body) given instead, first to last, to GETs whose path begins with the key.
"""

import json
import uuid

import attrs
from aiohttp import web

from nexus_client.stub import contract as nx

TOKEN = "oxide-token-0123456789"
PAGE_MAX = 2
"""Of instances: small, so that a few are several pages."""


def error(status, code, message, headers=None):
    body = {"request_id": str(uuid.uuid4()), "error_code": code, "message": message}
    return web.json_response(body, status=status, headers=headers)


@attrs.define(eq=False)
class PublicApi:
    """`server` is the model's `NexusServer`."""

    server: object
    projects: dict = attrs.field(factory=dict)
    troubles: dict = attrs.field(factory=dict)
    asked: list = attrs.field(factory=list)
    url: str = ""
    runner: object = None

    @property
    def lists(self):
        """Where lists of instances began to be asked for."""
        return [path for method, path, _ in self.asked if method == "GET" and path.startswith("/v1/instances?limit=")]

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "::1", 0).start()
        self.url = f"http://[::1]:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def handle(self, request):
        text = await request.text()
        self.asked.append((request.method, request.path_qs, json.loads(text) if text else None))
        for prefix, answers in self.troubles.items():
            if request.method == "GET" and request.path.startswith(prefix) and answers:
                status, headers, body = answers.pop(0)
                return web.Response(status=status, headers=headers, text=body)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return error(401, "Unauthorized", "credentials missing or invalid")
        match request.path.strip("/").split("/"):
            case ["v1", "projects", *rest]:
                return self._projects(request.method, rest, text)
            case ["v1", "instances"]:
                return await self._instances(request, text)
            case ["v1", "instances", key, *rest]:
                return await self._instance(request.method, uuid.UUID(key), rest)
        return error(404, None, "Not Found")

    def _projects(self, method, rest, text):
        if method == "POST":
            body = json.loads(text)
            assert set(body) == {"name", "description"}
            if body["name"] in self.projects:
                return error(400, "ObjectAlreadyExists", f'already exists: project "{body["name"]}"')
            # the id by which the model knows it
            self.projects[body["name"]] = self.server.nexus._ctx.named_id("project", body["name"])
            return web.json_response(self._project(body["name"]), status=201)
        if rest[0] not in self.projects:
            return error(404, "ObjectNotFound", f'not found: project with name "{rest[0]}"')
        return web.json_response(self._project(rest[0]))

    def _project(self, name):
        when = "2026-01-01T00:00:00Z"
        made = {"id": str(self.projects[name]), "name": name, "description": "made by sim-sled"}
        return made | {"time_created": when, "time_modified": when}

    async def _instances(self, request, text):
        nexus = self.server.nexus
        token = request.query.get("page_token")
        assert not (token and "project" in request.query), "the token says which project"
        project, _, after = (token or f"{request.query.get('project', '')}|").partition("|")
        if project not in self.projects:
            return error(404, "ObjectNotFound", f'not found: project with name "{project}"')
        if request.method == "POST":
            body = json.loads(text)
            assert {"name", "description", "hostname", "ncpus", "memory"} <= set(body)

            def create(ticket):
                sizes = (body["ncpus"], body["memory"], body.get("start", True))
                return nx.CreateInstance(ticket, body["name"], body["hostname"], *sizes, project=project)

            return self._answer(await self.server.host.submit(create))
        rows = sorted((row for row in nexus.instances() if self._of(row) == project), key=lambda row: row.name)
        rows = [row for row in rows if row.name > after]
        limit = min(PAGE_MAX, int(request.query["limit"]))
        more = f"{project}|{rows[limit - 1].name}" if len(rows) > limit else None
        return web.json_response({"items": [self._view(row.id) for row in rows[:limit]], "next_page": more})

    def _of(self, row):
        ctx = self.server.nexus._ctx
        return next((name for name in self.projects if ctx.named_id("project", name) == row.project_id), None)

    def _view(self, instance_id):
        view = self.server.nexus.view(instance_id)["instance"]
        shown = {name: None if value is None else str(value) for name, value in view.items()}
        kept = {name: view[name] for name in ("ncpus", "memory", "auto_restart_enabled")}
        return shown | kept | {"enable_jumbo_frames": False, "boot_disk_id": None, "cpu_platform": None}

    async def _instance(self, method, instance_id, rest):
        row = self.server.nexus.records.instances.get(instance_id)
        if row is None or row.time_deleted is not None:
            return error(404, "ObjectNotFound", f'not found: instance with id "{instance_id}"')
        if method == "GET":
            return web.json_response(self._view(instance_id))
        verbs = {"start": nx.Start, "stop": nx.Stop, "reboot": nx.Reboot}
        make = nx.Delete if method == "DELETE" else verbs[rest[0]]
        return self._answer(await self.server.host.submit(lambda ticket: make(ticket, instance_id)))

    def _answer(self, reply):
        if reply.status >= 400:
            return error(reply.status, reply.body.error_code, reply.body.message)
        if reply.status == 204:
            return web.Response(status=204)
        return web.json_response(self._view(reply.body["id"]), status=reply.status)
