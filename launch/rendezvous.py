"""Horovod's rendezvous server: ranks under its Gloo controller find each other by it, whichever the launcher."""

from __future__ import annotations

from collections.abc import Sequence

from ringtune.launch.ranks import RankSlot


class Rendezvous:
    """A rendezvous server in this process, and the variables by which a rank finds it."""

    def __init__(self, slots: Sequence[RankSlot], advertised: str) -> None:
        from horovod.runner.common.util.hosts import SlotInfo
        from horovod.runner.http.http_server import RendezvousServer

        self.advertised = advertised
        self.server = RendezvousServer()
        self.port = self.server.start()
        self.server.init(
            [
                SlotInfo(
                    each.host, each.rank, each.local_rank, each.cross_rank, each.size, each.local_size, each.cross_size
                )
                for each in slots
            ]
        )

    def environment(self, slot: RankSlot) -> dict[str, str]:
        """Return the variables that Horovod's Gloo context reads (horovod/common/gloo/gloo_context.cc)."""
        return {
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": self.advertised,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(self.port),
            "HOROVOD_HOSTNAME": slot.host,
            "HOROVOD_RANK": str(slot.rank),
            "HOROVOD_SIZE": str(slot.size),
            "HOROVOD_LOCAL_RANK": str(slot.local_rank),
            "HOROVOD_LOCAL_SIZE": str(slot.local_size),
            "HOROVOD_CROSS_RANK": str(slot.cross_rank),
            "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        }

    def stop(self) -> None:
        """Close the server."""
        self.server.stop()
