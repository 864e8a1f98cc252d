"""ASGI: requests in, responses out."""
