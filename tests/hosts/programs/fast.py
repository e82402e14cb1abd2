"""A FastAPI application: dependencies, background tasks, threads, streams, server-sent events, websockets, lifespan."""

import asyncio
import contextlib
import json
import os

from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from running_on import facts, released


@contextlib.asynccontextmanager
async def lifespan(app):
    print(f"lifespan.startup in {os.getpid()}", flush=True)
    app.state.background = []
    yield
    print(f"lifespan.shutdown in {os.getpid()}", flush=True)


app = FastAPI(lifespan=lifespan)


async def database():
    yield "connection"
    await asyncio.sleep(0)


@app.post("/")
async def report(request: Request, database: str = Depends(database)):
    return facts() | {"received": len(await request.body()), "database": database}


@app.get("/")
def in_thread(database: str = Depends(database)):
    import threading

    assert threading.current_thread() is not threading.main_thread()
    return {"loop": None, "database": database}


@app.get("/slow")
async def slow(tasks: BackgroundTasks):
    print("slow request has come", flush=True)
    await released()
    tasks.add_task(app.state.background.append, 1)
    return {"received": 0}


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(10):
            yield json.dumps(number) + "\n"
            await asyncio.sleep(0)

    return StreamingResponse(parts())


@app.websocket("/")
async def websocket(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


if __name__ == "__main__":
    import sys

    from starlette.testclient import TestClient

    import aioxide

    # The test client starts the application on a loop of its own, in another thread.
    options = {"backend_options": aioxide.anyio_backend[1]} if "--constant" in sys.argv else {}
    with TestClient(app, **options) as client:
        answer = client.post("/", content=b"123").json()
        mode = os.environ["RUNNING_ON"]
        assert answer["loop"] == (mode != "stdlib"), answer
        assert answer["names"] == (mode == "full"), answer
        assert answer["received"] == 3
        assert client.get("/stream").text.split() == [str(number) for number in range(10)]
        assert client.get("/").json()["database"] == "connection"
        client.get("/slow")
        assert app.state.background == [1]
        with client.websocket_connect("/") as socket:
            socket.send_text("x")
            assert socket.receive_text() == "X"
