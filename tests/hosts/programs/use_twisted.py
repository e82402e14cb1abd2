"""Twisted's asyncio reactor: TCP, timers, threads, coroutines of both kinds, signals."""

import asyncio
import os
import pathlib
import signal
import sys

from twisted.internet import asyncioreactor

if "--loop" in sys.argv:
    import aioxide

    loop = aioxide.new_event_loop()
else:
    loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)

from running_on import check
from twisted.internet import defer, endpoints, error, protocol, reactor, task, threads, utils


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Client(protocol.Protocol):
    def __init__(self):
        self.received = b""
        self.lost = defer.Deferred()

    def connectionMade(self):
        self.transport.write(bytes(500_000))

    def dataReceived(self, data):
        self.received += data
        if len(self.received) == 500_000:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.lost.callback(reason.check(error.ConnectionDone))


async def main():
    listening = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        protocol.Factory.forProtocol(Echo)
    )
    client = Client()
    point = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
    await endpoints.connectProtocol(point, client)
    assert await client.lost is error.ConnectionDone
    await listening.stopListening()
    await task.deferLater(reactor, 0.01, lambda: None)
    assert await threads.deferToThread(lambda: threads.blockingCallFromThread(reactor, lambda: 3)) == 3

    async def in_asyncio():
        check()
        await asyncio.sleep(0.001)
        return await task.deferLater(reactor, 0.001, lambda: 4).asFuture(asyncio.get_running_loop())

    assert await defer.Deferred.fromFuture(asyncio.ensure_future(in_asyncio())) == 4
    # Twisted has its own handler of SIGCHLD, and waits for its children itself.
    assert await utils.getProcessOutput("/bin/cat", [__file__]) == pathlib.Path(__file__).read_bytes()
    assert await utils.getProcessValue("/bin/sh", ["-c", "exit 3"]) == 3

    async def child_of_asyncio():
        child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        return await child.communicate(b"x" * 100_000), child.returncode

    answer = await defer.Deferred.fromFuture(asyncio.ensure_future(child_of_asyncio()))
    assert answer == ((b"x" * 100_000, None), 0)
    ticks = []
    ticking = task.LoopingCall(lambda: ticks.append(1) or (len(ticks) < 3 or ticking.stop()))
    await ticking.start(0.001)
    print("done")
    # Twisted's own handler of signals stops the reactor.
    os.kill(os.getpid(), signal.SIGTERM)


def failed(reason):
    reason.printTraceback()
    reactor.stop()


reactor.callWhenRunning(lambda: defer.ensureDeferred(main()).addErrback(failed))
reactor.run()
