"""What every command of one command line shares: where the server is."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotshard.options import VARIABLE, Options, resolve

if TYPE_CHECKING:
    import hotshard
    from hotshard.cli.operator import Operator

GRPC_DEFAULT = "127.0.0.1:7070"


@dataclass(frozen=True, slots=True)
class Session:
    """The addresses of the command line, and how to connect to them."""

    address: str | None = None
    grpc_address: str | None = None

    def connect(self) -> "hotshard.Client":
        """The client library, connected as the user asked; without a server a command says so at once."""
        import hotshard

        return hotshard.connect(self.address, direct="never")

    def operator(self, known: str = "") -> "Operator":
        """The calls that only operators make; they exist over gRPC alone.

        Args:
            known: the server's own address, if it has said so; good where the user gave none.
        """
        from hotshard.cli.operator import Operator

        target = self.grpc_target
        return Operator(known if known and target == GRPC_DEFAULT else target)

    @property
    def grpc_target(self) -> str:
        """Where the operator calls go."""
        if self.grpc_address:
            return self.grpc_address
        if self.address or os.environ.get(VARIABLE):
            kind, place = resolve(Options(address=self.address), os.environ)
            if kind == "grpc":
                return place
        return GRPC_DEFAULT
