"""Browser sessions: logging in, staying logged in, logging out."""
