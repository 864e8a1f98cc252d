"""The pure ground: bytes, values and `now` in, values or an error out. Nothing here awaits or reads a clock."""
