"""HTTP to upstreams, behind one small interface so that the client can be swapped."""

from gateway.transport.client import Timeouts, Transport, TransportReply

__all__ = ["Timeouts", "Transport", "TransportReply"]
