"""The ways in: REST for people and programs, the stream for client libraries. Nothing below knows of HTTP."""
