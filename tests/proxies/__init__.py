"""Forward auth behind Traefik, nginx, Caddy and Envoy: `make proxies`."""
