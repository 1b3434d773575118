"""What the servers use of aiohttp's server half, from where each thing is.

`aiohttp.web` brings all of it: an application, a router of URLs, files, runners and argparse, 1.3 MB of every server
and a part of its start. Instead of these there are operations.py and listen.py.
"""

from __future__ import annotations

from aiohttp.helpers import RequestKey
from aiohttp.web_exceptions import HTTPBadRequest
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse, json_response
from aiohttp.web_server import Server
from aiohttp.web_ws import WebSocketResponse

__all__ = [
    "BaseRequest",
    "HTTPBadRequest",
    "RequestKey",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamResponse",
    "WebSocketResponse",
    "json_response",
]
