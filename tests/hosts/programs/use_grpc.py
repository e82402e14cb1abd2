"""grpc.aio: its C core wakes the loop through a descriptor that it watches with `add_reader`."""

import asyncio

import grpc
from running_on import check


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rpartition("/")[2]
        return {
            "unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "stream": grpc.stream_stream_rpc_method_handler(self.stream),
            "never": grpc.unary_unary_rpc_method_handler(self.never),
            "late": grpc.unary_unary_rpc_method_handler(self.late),
            "fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }[name]

    async def unary(self, request, context):
        check()
        await asyncio.sleep(0)
        return request[::-1]

    async def stream(self, requests, context):
        async for request in requests:
            yield request.upper()

    async def never(self, request, context):
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def late(self, request, context):
        await asyncio.Event().wait()

    async def fail(self, request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing")


async def main():
    check()
    service = Service()
    service.started, service.cancelled = asyncio.Event(), asyncio.Event()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary("/s/unary")

        async def one(number):
            return await unary(b"%d" % number)

        expected = [(b"%d" % number)[::-1] for number in range(200)]
        assert await asyncio.gather(*map(one, range(200))) == expected
        assert await unary(b"abc" * 100_000) == b"cba" * 100_000

        async def requests():
            for number in range(100):
                yield b"x%d" % number
                await asyncio.sleep(0)

        stream = channel.stream_stream("/s/stream")(requests())
        assert [answer async for answer in stream] == [b"X%d" % number for number in range(100)]
        try:
            await channel.unary_unary("/s/late")(b"", timeout=0.1)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            raise AssertionError
        task = asyncio.create_task(wait_for(channel.unary_unary("/s/never")(b"")))
        await service.started.wait()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError
        await service.cancelled.wait()
        try:
            await channel.unary_unary("/s/fail")(b"")
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError
    await server.stop(None)


async def wait_for(call):
    return await call


asyncio.run(main())
