"""Conformance: the middleware behind a real server, against an OpenID provider that other people wrote."""
