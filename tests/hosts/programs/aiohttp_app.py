"""An application for `python -m aiohttp.web` and gunicorn's aiohttp worker."""

import json

from aiohttp import web
from running_on import facts


async def report(request):
    return web.Response(text=json.dumps(facts()))


def app(argv=None):
    application = web.Application()
    application.add_routes([web.get("/", report)])
    return application


async def factory():
    return app()
