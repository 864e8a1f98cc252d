"""Swagger UI in a real Chromium, with an OpenID provider that other people wrote behind its Authorize button."""
